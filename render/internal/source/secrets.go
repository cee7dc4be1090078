package source

import (
	"cmp"
	"encoding/base64"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/nexus-platform/reconciler/render/internal/manifest"
)

// shortestSecret is the length from which a value is taken out of messages; shorter ones would take words apart.
const shortestSecret = 3

// Secrets are the values that no error may quote.
type Secrets struct{ values map[string]bool }

// Add adds one value, in every form in which an error could quote it.
func (s *Secrets) Add(value string) {
	if s.values == nil {
		s.values = make(map[string]bool)
	}
	for _, v := range append(strings.Split(value, "\n"), value) {
		if v = strings.TrimSpace(v); len(v) < shortestSecret {
			continue
		}
		quoted := strconv.Quote(v)
		for _, form := range []string{v, quoted[1 : len(quoted)-1], base64.StdEncoding.EncodeToString([]byte(v)), url.QueryEscape(v)} {
			s.values[form] = true
		}
		if plain, err := base64.StdEncoding.DecodeString(v); err == nil && len(plain) >= shortestSecret {
			s.values[string(plain)] = true
		}
	}
}

// AddText adds what a decrypted file holds: its values if it is YAML or JSON, else its lines and what follows an equals sign.
func (s *Secrets) AddText(text []byte, limits manifest.Limits) {
	docs, err := manifest.Parse(text, limits)
	if err == nil && len(docs) > 0 && manifest.Text(docs[0].Root) == "" {
		for _, d := range docs {
			o := manifest.ObjectOf(d.Root)
			manifest.Leaves(d.Root, func(v string) {
				if v != o.Kind && v != o.APIVersion && v != o.Name && v != o.Namespace {
					s.Add(v)
				}
			})
		}
		return
	}
	for _, line := range strings.Split(string(text), "\n") {
		s.Add(line)
		if _, value, ok := strings.Cut(line, "="); ok {
			s.Add(value)
		}
	}
}

// What kustomize writes around the reason: whole files and configurations, and its own steps.
var (
	dumps = regexp.MustCompile("(?s)`[^`]*`|: node contents:.*|\\[[^\\]]{60,}\\]?|\\{[^}]{60,}\\}?")
	steps = []*regexp.Regexp{
		regexp.MustCompile(`^(?:accumulat(?:ing|ion) (?:resources|components)(?: from '[^']*')?: |accumulateDirectory: "?|trouble configuring builtin \w+ with config: …: )+`),
		regexp.MustCompile(`^accumulation err='(.*)': must build at directory: .*$`),
		regexp.MustCompile(`^accumulation err='.*': (?:read|open) .*? is a directory': `),
		regexp.MustCompile(`\.?\[no(?:Grp|Ns|Ver|Kind)\]`),
	}
)

// Clean makes a message of kustomize fit to be shown: its first line, without what it dumps, and without any secret.
func (s *Secrets) Clean(message string) string {
	message = dumps.ReplaceAllString(strings.TrimSpace(message), "…")
	message, _, _ = strings.Cut(message, "\n")
	for _, step := range steps {
		message = step.ReplaceAllString(message, "$1")
	}
	values := make([]string, 0, len(s.values))
	for v := range s.values {
		values = append(values, v)
	}
	slices.SortFunc(values, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	pairs := make([]string, 0, 2*len(values))
	for _, v := range values {
		pairs = append(pairs, v, "***")
	}
	message = strings.NewReplacer(pairs...).Replace(message)
	message = strings.Join(strings.Fields(message), " ")
	if len(message) > 600 {
		message = strings.ToValidUTF8(message[:600], "") + "…"
	}
	return message
}
