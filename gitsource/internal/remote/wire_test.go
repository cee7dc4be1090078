package remote

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/nexus-platform/reconciler/gitsource/internal/limit"
)

// FuzzAnswers reads whatever a server may say: nothing panics, and what is taken for a hash is one.
func FuzzAnswers(f *testing.F) {
	const hash = "1234567890123456789012345678901234567890"
	for _, s := range []string{
		"001e# service=git-upload-pack\n0000000eversion 2\n0000", "003d" + hash + " refs/heads/main\n0000",
		"0055" + hash + " refs/heads/main\x00side-band-64k ofs-delta\n0000", "000dpackfile\n0009\x01PACK0000", "0008NAK\n0009\x01PACK0000", "0001", "zzzz", "ffff",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		open := func() *packets { return newPackets(bytes.NewReader(raw)) }
		if a, err := readAdvert(open(), "refs/heads/main", 10); err == nil && a.tip != "" && !isHash(a.tip) {
			t.Errorf("the tip is %q", a.tip)
		}
		if tip, err := readTip(open(), "refs/heads/main", 10); err == nil && tip != "" && !isHash(tip) {
			t.Errorf("the tip is %q", tip)
		}
		for _, v2 := range []bool{false, true} {
			if n, _ := io.Copy(io.Discard, &band{p: open(), v2: v2}); n > int64(len(raw)) {
				t.Errorf("%d bytes came out of %d", n, len(raw))
			}
		}
	})
}

func TestTheListOfRefsIsBounded(t *testing.T) {
	var many bytes.Buffer
	for range 1000 {
		many.WriteString("003d1234567890123456789012345678901234567890 refs/heads/main\n")
	}
	many.WriteString("0000")
	var over *limit.Error
	if _, err := readTip(newPackets(&many), "refs/heads/main", 100); !errors.As(err, &over) {
		t.Errorf("got %v", err)
	}
}

func FuzzAddress(f *testing.F) {
	for _, s := range []string{"https://host/x", "git@host:x", "ssh://u@[::1]:22/~x", "file:///x", "http://127.0.0.1/x", "-o:x", "ext::sh"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Remote{URL: s}.Address()
		if err != nil {
			return
		}
		if !slices.Contains([]string{"https", "ssh", "file", "http"}, a.Scheme) || (a.Scheme == "http" && !isLoopback(a.Host)) {
			t.Errorf("%q is %+v", s, a)
		}
		if len(a.Host) > 0 && a.Host[0] == '-' || len(a.User) > 0 && a.User[0] == '-' {
			t.Errorf("%q has the host %q and the user %q", s, a.Host, a.User)
		}
	})
}
