package source

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/aes"
	sopsage "github.com/getsops/sops/v3/age"
	"github.com/getsops/sops/v3/config"
	"github.com/getsops/sops/v3/keyservice"
	"github.com/getsops/sops/v3/stores/dotenv"
	"github.com/getsops/sops/v3/stores/ini"
	"github.com/getsops/sops/v3/stores/json"
	"github.com/getsops/sops/v3/stores/yaml"
	"google.golang.org/grpc"

	"github.com/nexus-platform/reconciler/render/internal/manifest"
	"github.com/nexus-platform/reconciler/render/internal/wire"
)

// ParseKeys reads age identities, each text a line or a whole key file.
func ParseKeys(texts []string) ([]age.Identity, error) {
	var keys []age.Identity
	for _, text := range texts {
		found, err := age.ParseIdentities(strings.NewReader(text))
		if err != nil { // which would quote the key
			return nil, &wire.DecryptError{File: "age keys", Reason: "one of them is not an age identity (a line with AGE-SECRET-KEY-…)"}
		}
		keys = append(keys, found...)
	}
	return keys, nil
}

// store is what SOPS knows of a file format.
type store interface {
	LoadEncryptedFile(in []byte) (sops.Tree, error)
	EmitPlainFile(in sops.TreeBranches) ([]byte, error)
}

// decrypt returns content as it is unless it is a SOPS file. YAML is looked at before SOPS, which writes aliases out.
func (s *Source) decrypt(name string, content []byte) ([]byte, error) {
	if !bytes.Contains(content, []byte("sops")) {
		return content, nil
	}
	c := config.NewStoresConfig()
	switch path.Ext(name) {
	case ".yaml", ".yml":
		return s.decryptYAML(name, content)
	case ".json":
		if s.isStanza(content, "sops") {
			return s.open(name, content, json.NewStore(&c.JSON))
		}
	case ".env":
		if bytes.HasPrefix(content, []byte("sops_mac=")) || bytes.Contains(content, []byte("\nsops_mac=")) {
			return s.open(name, content, dotenv.NewStore(&c.Dotenv))
		}
	case ".ini":
		if bytes.HasPrefix(content, []byte("[sops]")) || bytes.Contains(content, []byte("\n[sops]")) {
			return s.open(name, content, ini.NewStore(&c.INI))
		}
	default:
		if bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")) && s.isStanza(content, "sops") && s.isStanza(content, "data") {
			return s.open(name, content, json.NewBinaryStore(&c.JSONBinary))
		}
	}
	return content, nil
}

// isStanza reports whether a JSON file has a field at its top.
func (s *Source) isStanza(content []byte, field string) bool {
	docs, err := manifest.Parse(content, s.ManifestLimits())
	return err == nil && len(docs) == 1 && manifest.Field(docs[0].Root, field) != nil
}

// decryptYAML decrypts the documents that carry a SOPS stanza: all together if SOPS sealed them together, else one by one, as
// others put files together.
func (s *Source) decryptYAML(name string, content []byte) ([]byte, error) {
	docs, _ := manifest.Parse(content, s.ManifestLimits()) // who uses the file parses it again, and says what is wrong
	macs := make([]string, len(docs))
	for i, d := range docs {
		// A SopsSecret is decrypted in the cluster, by an operator.
		if manifest.Text(manifest.Field(d.Root, "kind")) != "SopsSecret" {
			macs[i] = manifest.Text(manifest.Field(manifest.Field(d.Root, "sops"), "mac"))
		}
	}
	distinct := slices.Compact(slices.Sorted(slices.Values(macs)))
	if len(distinct) == 0 || len(distinct) == 1 && distinct[0] == "" {
		return content, nil
	}
	codec := yaml.NewStore(&config.NewStoresConfig().YAML)
	if len(distinct) == 1 {
		return s.open(name, content, codec)
	}
	parts := manifest.Split(content)
	if len(parts) != len(docs) {
		return nil, &wire.DecryptError{File: name, Reason: "the file mixes encrypted documents in a way that cannot be told apart; put each into a file of its own"}
	}
	for i, part := range parts {
		if macs[i] == "" {
			continue
		}
		plain, err := s.open(name, part, codec)
		if err != nil {
			return nil, err
		}
		parts[i] = plain
	}
	return bytes.Join(parts, []byte("\n---\n")), nil
}

// open decrypts what SOPS has sealed and checks that nobody changed it since.
func (s *Source) open(name string, sealed []byte, codec store) ([]byte, error) {
	// The errors of SOPS quote values, so none is passed on.
	tree, err := codec.LoadEncryptedFile(sealed)
	if err != nil {
		return nil, &wire.DecryptError{File: name, Reason: "the SOPS stanza is not complete"}
	}
	data, err := tree.Metadata.GetDataKeyWithKeyServices([]keyservice.KeyServiceClient{ageOnly(s.keys)}, nil)
	if err != nil {
		return nil, s.noKey(name, tree.Metadata)
	}
	cipher := aes.NewCipher()
	mac, err := tree.Decrypt(data, cipher)
	if err != nil {
		return nil, &wire.DecryptError{File: name, Reason: "a value is damaged; encrypt the file again"}
	}
	want, err := cipher.Decrypt(tree.Metadata.MessageAuthenticationCode, data, tree.Metadata.LastModified.Format(time.RFC3339))
	if err != nil || want != mac {
		return nil, &wire.DecryptError{File: name, Reason: "the file was changed after it was encrypted (its MAC does not match); encrypt it again"}
	}
	plain, err := codec.EmitPlainFile(tree.Branches)
	if err != nil {
		return nil, &wire.DecryptError{File: name, Reason: "the plain file cannot be written"}
	}
	s.Secrets.AddText(plain, s.ManifestLimits())
	return plain, nil
}

// noKey says who could decrypt a file.
func (s *Source) noKey(name string, meta sops.Metadata) error {
	e := &wire.DecryptError{File: name}
	var other []string
	for _, group := range meta.KeyGroups {
		for _, key := range group {
			if key.TypeToIdentifier() == sopsage.KeyTypeIdentifier {
				e.Recipients = append(e.Recipients, key.ToString())
			} else {
				other = append(other, key.TypeToIdentifier())
			}
		}
	}
	slices.Sort(other)
	switch {
	case len(e.Recipients) == 0:
		e.Reason = "it is encrypted with " + cmp.Or(strings.Join(slices.Compact(other), ", "), "no key at all") +
			", which would need a program or the network; only age keys are used: add an age recipient (sops updatekeys)"
	case len(s.keys) == 0:
		e.Reason = "the environment has no age key"
	default:
		e.Reason = "none of the environment's age keys fits"
	}
	return e
}

// ageOnly is a key service that has these identities and asks nobody: no agent, no cloud, no environment.
type ageOnly []age.Identity

func (k ageOnly) Decrypt(_ context.Context, req *keyservice.DecryptRequest, _ ...grpc.CallOption) (*keyservice.DecryptResponse, error) {
	if _, ok := req.GetKey().GetKeyType().(*keyservice.Key_AgeKey); !ok || len(k) == 0 {
		return nil, errors.New("no such key")
	}
	key := sopsage.MasterKey{EncryptedKey: string(req.GetCiphertext())}
	sopsage.ParsedIdentities(k).ApplyToMasterKey(&key)
	plain, err := key.Decrypt()
	if err != nil {
		return nil, err
	}
	return &keyservice.DecryptResponse{Plaintext: plain}, nil
}

func (ageOnly) Encrypt(context.Context, *keyservice.EncryptRequest, ...grpc.CallOption) (*keyservice.EncryptResponse, error) {
	return nil, errors.New("a render encrypts nothing")
}
