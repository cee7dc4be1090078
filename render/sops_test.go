package render

import (
	"encoding/base64"
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/aes"
	sopsage "github.com/getsops/sops/v3/age"
	"github.com/getsops/sops/v3/config"
	"github.com/getsops/sops/v3/keys"
	"github.com/getsops/sops/v3/pgp"
	"github.com/getsops/sops/v3/stores/dotenv"
	"github.com/getsops/sops/v3/stores/ini"
	"github.com/getsops/sops/v3/stores/json"
	"github.com/getsops/sops/v3/stores/yaml"

	"github.com/nexus-platform/reconciler/object"
)

const canary = "c4n4ry-v4lue"

// seal encrypts a file as `sops encrypt` does.
func seal(t *testing.T, name, plain string, to ...keys.MasterKey) string {
	t.Helper()
	c := config.NewStoresConfig()
	c.YAML.Indent = 2
	var codec interface {
		LoadPlainFile([]byte) (sops.TreeBranches, error)
		EmitEncryptedFile(sops.Tree) ([]byte, error)
	}
	switch {
	case strings.HasSuffix(name, ".yaml"):
		codec = yaml.NewStore(&c.YAML)
	case strings.HasSuffix(name, ".json"):
		codec = json.NewStore(&c.JSON)
	case strings.HasSuffix(name, ".env"):
		codec = dotenv.NewStore(&c.Dotenv)
	case strings.HasSuffix(name, ".ini"):
		codec = ini.NewStore(&c.INI)
	default:
		codec = json.NewBinaryStore(&c.JSONBinary)
	}
	branches, err := codec.LoadPlainFile([]byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	tree := sops.Tree{Branches: branches, Metadata: sops.Metadata{
		KeyGroups: []sops.KeyGroup{to}, Version: "3.13.3", LastModified: time.Now().UTC(), EncryptedRegex: "",
	}}
	if strings.HasSuffix(name, ".yaml") {
		tree.Metadata.EncryptedRegex = "^(data|stringData)$"
	}
	data := []byte(strings.Repeat("k", 32))
	for _, key := range to {
		if sopsage.KeyTypeIdentifier != key.TypeToIdentifier() {
			key.SetEncryptedDataKey([]byte("nothing"))
		} else if err := key.Encrypt(data); err != nil {
			t.Fatal(err)
		}
	}
	cipher := aes.NewCipher()
	mac, err := tree.Encrypt(data, cipher)
	if err != nil {
		t.Fatal(err)
	}
	if tree.Metadata.MessageAuthenticationCode, err = cipher.Encrypt(mac, data, tree.Metadata.LastModified.Format(time.RFC3339)); err != nil {
		t.Fatal(err)
	}
	out, err := codec.EmitEncryptedFile(tree)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), canary) {
		t.Fatalf("%s is not encrypted", name)
	}
	return string(out)
}

func newKey(t *testing.T) *age.X25519Identity {
	t.Helper()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func recipient(t *testing.T, key *age.X25519Identity) keys.MasterKey {
	t.Helper()
	master, err := sopsage.MasterKeyFromRecipient(key.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	return master
}

func secret(name, key, value string) string {
	return "apiVersion: v1\nkind: Secret\nmetadata:\n  name: " + name + "\nstringData:\n  " + key + ": " + value + "\n"
}

func TestSOPSFilesOfEveryFormatAreDecryptedWhereTheyAreRead(t *testing.T) {
	key := newKey(t)
	to := recipient(t, key)
	f := files{
		"app/kustomization.yaml": "resources: [secret.yaml, several.yaml, together.yaml]\ngeneratorOptions: {disableNameSuffixHash: true}\n" +
			"patches: [{path: patch.yaml}]\n" +
			"secretGenerator:\n- {name: generated, files: [blob, conf.json, conf.ini], envs: [vars.env]}\n" +
			"configMapGenerator:\n- {name: plain, files: [sops.txt]}\n",
		"app/secret.yaml": seal(t, "x.yaml", secret("whole", "password", canary), to),
		"app/patch.yaml":  seal(t, "x.yaml", secret("whole", "extra", canary), to),
		"app/several.yaml": "# put together by hand\n---\n" + configMap("open") + "---\n" + seal(t, "x.yaml", secret("one", "a", canary), to) +
			"---\n" + seal(t, "x.yaml", secret("two", "a", canary), to),
		"app/together.yaml": seal(t, "x.yaml", secret("three", "a", canary)+"---\n"+secret("four", "a", canary), to),
		"app/blob":          seal(t, "blob", canary, to),
		"app/conf.json":     seal(t, "x.json", `{"a": "`+canary+`"}`, to),
		"app/conf.ini":      seal(t, "x.ini", "[a]\nb = "+canary+"\n", to),
		"app/vars.env":      seal(t, "x.env", "VAR="+canary+"\n", to),
		"app/sops.txt":      "this only speaks of sops\n",
	}
	got, err := (&Renderer{Command: childCommand, Limits: small()}).Render(t.Context(), Request{
		Tree: f.tree(t), Path: "app", AgeKeys: []string{newKey(t).String(), "# a whole key file\n" + key.String() + "\n"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"whole": {"password", "extra"}, "one": {"a"}, "two": {"a"}, "three": {"a"}, "four": {"a"},
		"generated": {"blob", "conf.json", "conf.ini", "VAR"},
	}
	for name, fields := range want {
		o, ok := got.Set.Get(object.Ref{Kind: "Secret", Name: name})
		if !ok {
			t.Errorf("%s is missing", name)
			continue
		}
		if o.Body.Object["sops"] != nil || o.Body.Object["stringData"] != nil {
			t.Errorf("%s still has sops or stringData", name)
		}
		for _, field := range fields {
			value, _ := o.Body.Object["data"].(map[string]any)[field].(string)
			if plain, _ := base64.StdEncoding.DecodeString(value); !strings.Contains(string(plain), canary) {
				t.Errorf("%s.%s is %q", name, field, plain)
			}
		}
	}
	if o, _ := got.Set.Get(object.Ref{Kind: "Secret", Name: "two"}); o.Origin.Path != "app/several.yaml" {
		t.Errorf("two comes from %v", o.Origin)
	}
}

func TestSOPSFilesThatCannotBeDecryptedSayWhoCould(t *testing.T) {
	key, other := newKey(t), newKey(t)
	to := recipient(t, key)
	sealed := seal(t, "x.yaml", secret("s", "password", canary), to)
	for name, c := range map[string]struct {
		content string
		keys    []string
		says    string
	}{
		"no key":             {sealed, nil, "has no age key (encrypted for " + key.Recipient().String() + ")"},
		"another key":        {sealed, []string{other.String()}, "none of the environment's age keys fits (encrypted for " + key.Recipient().String() + ")"},
		"PGP":                {seal(t, "x.yaml", secret("s", "password", canary), pgp.NewMasterKeyFromFingerprint("85D77543B3D624B63CEA9E6DBC17301B491B3F21")), []string{key.String()}, "it is encrypted with pgp, which would need a program"},
		"changed":            {strings.Replace(sealed, "name: s", "name: t", 1), []string{key.String()}, "its MAC does not match"},
		"a damaged value":    {strings.Replace(sealed, "GCM,data:", "GCM,data:Z", 1), []string{key.String()}, "decrypt"},
		"a stanza in pieces": {secret("s", "a", "b") + "sops:\n  mac: x\n", []string{key.String()}, "the SOPS stanza is not complete"},
	} {
		t.Run(name, func(t *testing.T) {
			f := files{"app/kustomization.yaml": "resources: [s.yaml]\n", "app/s.yaml": c.content}
			_, err := (&Renderer{Command: childCommand}).Render(t.Context(), Request{Tree: f.tree(t), Path: "app", AgeKeys: c.keys})
			var e *DecryptError
			if !errors.As(err, &e) || e.File != "app/s.yaml" || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("the error is %T: %v", err, err)
			}
			noLeak(t, err.Error(), canary, key.String(), other.String())
		})
	}
}

func TestAnAgeKeyThatIsNoneIsNotQuoted(t *testing.T) {
	_, err := (&Renderer{Command: childCommand}).Render(t.Context(), Request{Tree: plain("").tree(t), Path: "app", AgeKeys: []string{"AGE-SECRET-KEY-1" + canary}})
	if e := (*DecryptError)(nil); !errors.As(err, &e) {
		t.Fatalf("the error is %T: %v", err, err)
	}
	noLeak(t, err.Error(), canary)
}

func TestAKeyInTheParentsEnvironmentIsNotUsed(t *testing.T) {
	key := newKey(t)
	t.Setenv("SOPS_AGE_KEY", key.String())
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	if err := os.MkdirAll(home+"/sops/age", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(home+"/sops/age/keys.txt", []byte(key.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	f := files{"app/kustomization.yaml": "resources: [s.yaml]\n", "app/s.yaml": seal(t, "x.yaml", secret("s", "a", canary), recipient(t, key))}
	mustRefuse[*DecryptError](t, f)
}

func TestASopsSecretIsLeftToItsOperator(t *testing.T) {
	f := files{"app/kustomization.yaml": "resources: [s.yaml]\n",
		"app/s.yaml": "apiVersion: isindir.github.com/v1alpha3\nkind: SopsSecret\nmetadata: {name: s}\nspec: {}\nsops: {mac: x}\n"}
	o, _ := f.mustRender(t).Set.Get(object.Ref{Group: "isindir.github.com", Kind: "SopsSecret", Name: "s"})
	if o.Body == nil || o.Body.Object["sops"] == nil {
		t.Error("the stanza is gone")
	}
}

// noLeak looks for secrets in a text, in every form in which they could stand there.
func noLeak(t *testing.T, text string, values ...string) {
	t.Helper()
	for _, v := range values {
		for _, form := range []string{v, base64.StdEncoding.EncodeToString([]byte(v)), url.QueryEscape(v)} {
			if strings.Contains(text, form) {
				t.Errorf("a secret is in it: %s", text)
			}
		}
	}
}

// Each of these makes kustomize write an error that quotes what it holds.
func TestNoErrorQuotesASecret(t *testing.T) {
	key := newKey(t)
	to := recipient(t, key)
	for name, f := range map[string]files{
		"a sealed patch that is none": {
			"app/kustomization.yaml": "resources: [cm.yaml]\npatches: [{path: p.yaml}]\n", "app/cm.yaml": configMap("cm"),
			"app/p.yaml": seal(t, "x.yaml", "data: {a: "+canary+"}\n", to),
		},
		"a patch without a target": {
			"app/kustomization.yaml": "resources: [cm.yaml]\npatches: [{path: p.yaml}]\n", "app/cm.yaml": configMap("cm"),
			"app/p.yaml": secret("nobody", "a", canary),
		},
		"a literal without a key":  plain("secretGenerator: [{name: s, literals: ['=" + canary + "']}]\n"),
		"a literal without a sign": plain("secretGenerator: [{name: s, literals: ['" + canary + "']}]\n"),
		"the same secret twice": {
			"app/kustomization.yaml": "resources: [a.yaml, b.yaml]\n", "app/a.yaml": secret("s", "a", canary), "app/b.yaml": secret("s", "a", canary),
		},
		"a replacement into a scalar": {
			"app/kustomization.yaml": "resources: [s.yaml]\nreplacements: [{source: {kind: Secret, fieldPath: stringData.a}, targets: [{select: {kind: Secret}, fieldPaths: [stringData.a.b.c]}]}]\n",
			"app/s.yaml":             secret("s", "a", canary),
		},
		"a number as text": {
			"app/kustomization.yaml": "resources: [s.yaml]\n", "app/s.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: 12345678, b: " + canary + "}\n",
		},
		"a JSON patch that does not fit": {
			"app/kustomization.yaml": "resources: [s.yaml]\npatches: [{target: {kind: Secret}, patch: '[{\"op\":\"test\",\"path\":\"/stringData/a\",\"value\":\"" + canary + "x\"}]'}]\n",
			"app/s.yaml":             secret("s", "a", canary),
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := (&Renderer{Command: childCommand}).Render(t.Context(), Request{Tree: f.tree(t), Path: "app", AgeKeys: []string{key.String()}})
			if err == nil {
				t.Fatal("it was rendered")
			}
			t.Log(err)
			noLeak(t, err.Error(), canary, "12345678")
		})
	}
}
