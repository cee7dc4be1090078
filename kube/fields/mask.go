package fields

import (
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// masked stands for a value that must not be shown: neither it, nor its length, nor a hash of it.
const masked = "***"

var (
	// secretWord matches names of environment variables and keys of data that hold secrets.
	secretWord = regexp.MustCompile(`(?i)passw|passphrase|pwd$|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|credential|(^|[-_])dsn$|auth[-_]?key|connection[-_]?string`)
	// secretEnding is stricter: fields of an API that merely refer to a secret (secretName, tokenExpirationSeconds) are shown.
	secretEnding = regexp.MustCompile(`(?i)(password|passwd|passphrase|secret|token|api_?key|access_?key|private_?key|credentials?|dsn)$`)

	userInfo   = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s:@"']*:[^/\s@"']+@`)
	assignment = regexp.MustCompile(`(?i)((?:passw(?:or)?d|passphrase|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|credentials?)["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s,;"']+)`)
	bearer     = regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}`)
	pemBlock   = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)`)
)

// Redact takes out of a text what looks like a secret: passwords in URLs, assignments to telling names, tokens, private keys.
func Redact(text string) string {
	text = userInfo.ReplaceAllString(text, "${1}"+masked+"@")
	text = pemBlock.ReplaceAllString(text, masked)
	text = bearer.ReplaceAllString(text, "${1} "+masked)
	return assignment.ReplaceAllString(text, "${1}"+masked)
}

// IsSecret reports the one kind whose values are never shown.
func IsSecret(gk schema.GroupKind) bool { return gk.Group == "" && gk.Kind == "Secret" }

// hidden reports whether the value at path must not be shown.
func hidden(gk schema.GroupKind, path []step) bool {
	if len(path) == 0 {
		return false
	}
	last := path[len(path)-1]
	if IsSecret(gk) {
		return path[0].name == "data" || path[0].name == "stringData"
	}
	if last.name == "value" && len(path) > 1 { // {name: DB_PASSWORD, value: …}
		return secretWord.MatchString(path[len(path)-2].key)
	}
	if path[0].name == "data" || path[0].name == "binaryData" {
		return secretWord.MatchString(last.name)
	}
	if len(path) > 1 && path[0].name == "metadata" && path[1].name != "annotations" {
		return false
	}
	return secretEnding.MatchString(last.name)
}

// LastApplied repeats the whole object, values of Secrets included.
const LastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// dropped reports fields that no diff shows.
func dropped(path []step) bool {
	return len(path) == 3 && path[0].name == "metadata" && path[1].name == "annotations" && path[2].name == LastApplied
}

// plain makes a text of one short line.
func plain(text string) string {
	return strings.NewReplacer("\n", `\n`, "\t", `\t`, "\r", `\r`).Replace(Redact(text))
}
