package wire

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhatIsNoFrameIsNotBelieved(t *testing.T) {
	for name, said := range map[string][]byte{
		"a frame without end":      {0, 0, 0, 10, 0xff, 0xff, 0xff, 0xff},
		"a header without end":     {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"a header that is no JSON": {0, 0, 0, 2, 0, 0, 0, 0, '{', '{'},
		"half a frame":             {0, 0, 0, 9, 0, 0, 0, 0, '{'},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := Read(bytes.NewReader(said), 1<<20); err == nil {
				t.Error("it was believed")
			}
		})
	}
}

func TestAFrameArrivesAsItWasSent(t *testing.T) {
	var pipe bytes.Buffer
	sent := Header{Op: OpAnswer, Path: "a/b", Answer: &Answer{Kind: Directory, Real: "x"}}
	for _, body := range []string{"", "content"} {
		if err := Write(&pipe, sent, []byte(body)); err != nil {
			t.Fatal(err)
		}
		got, content, err := Read(&pipe, 10)
		if err != nil || string(content) != body {
			t.Fatalf("%q, %v", content, err)
		}
		if diff := cmp.Diff(sent, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestEveryFaultArrivesAsItWas(t *testing.T) {
	why := errors.New("the tree's own reason")
	for _, sent := range []error{
		&ReferenceError{File: "f", Field: "a[1]", Reference: "x", Why: "is"}, &PluginError{File: "f", Plugin: "helm"}, &KustomizationError{File: "f", Reason: "r"},
		&MissingError{Path: "p"}, &ManifestError{File: "f", Line: 3, Reason: "r"}, &FileError{File: "f", Reason: "cannot be read"}, &LimitError{Limit: "Objects", Max: 3},
		&DecryptError{File: "f", Recipients: []string{"age1"}}, &ObjectError{Object: "o", From: "f:1"}, &BuildError{Path: "p", Reason: "r"}, &CrashError{Reason: "r"},
	} {
		t.Run(fmt.Sprintf("%T", sent), func(t *testing.T) {
			var pipe bytes.Buffer
			if err := Write(&pipe, Header{Op: OpFailed, Problems: []Problem{ProblemOf(sent)}}, nil); err != nil {
				t.Fatal(err)
			}
			h, _, err := Read(&pipe, 0)
			if err != nil {
				t.Fatal(err)
			}
			got := h.Problems[0].Err(map[string]error{"f": why})
			if f := (*FileError)(nil); errors.As(got, &f) {
				if !errors.Is(got, why) {
					t.Error("the tree's own error is lost")
				}
				f.Err = nil
			}
			if diff := cmp.Diff(sent, got); diff != "" {
				t.Error(diff)
			}
			if sent.Error() == "" {
				t.Error("it says nothing")
			}
		})
	}
	if e := (Problem{}).Err(nil); e.Error() == "" {
		t.Error("an empty problem says nothing")
	}
	if text := ProblemOf(errors.New("CANARY")).Err(nil).Error(); bytes.Contains([]byte(text), []byte("CANARY")) {
		t.Error("an unforeseen error is quoted")
	}
}
