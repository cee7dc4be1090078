package signed

import "testing"

// FuzzAllowedSigners reads foreign lists: nothing panics, and what is taken has a key.
func FuzzAllowedSigners(f *testing.F) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0T8Jx7eR3l5Yk0c5v7x7V4qQ8m0n5uYb0x0m3o4p5q"
	for _, s := range []string{"jane " + key, `"a b" namespaces="git" ` + key, `jane valid-before="20300101",valid-after="20200101Z" ` + key, "# x", `"`, "jane cert-authority " + key} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		signers, err := parseAllowedSigners(raw)
		if err != nil {
			return
		}
		for _, s := range signers {
			if s.key == nil {
				t.Error("a signer has no key")
			}
		}
	})
}
