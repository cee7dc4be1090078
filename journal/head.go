// Package journal remembers what was begun: the head of an environment's state machine and the bundles that it names, in Secrets of the target cluster.
package journal

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nexus-platform/reconciler/object"
)

// Version of the head's format. A head of a newer version is refused by name: an older
// program would not understand what it is in the middle of.
const Version = 1

// State of the head.
type State string

// The states. The zero Head, which is not stored yet, is idle.
const (
	Idle      State = "idle"      // no release is open
	Prepared  State = "prepared"  // a release is open and may still be undone
	Committed State = "committed" // it is decided: only forward
	Aborting  State = "aborting"  // it is being undone
)

// Head is the one durable state machine of an environment (ARCHITECTURE.md, One pass). It is a
// value: the methods return the next head and change nothing.
type Head struct {
	Version     int       `json:"version"`
	Environment types.UID `json:"environment"`
	Epoch       int64     `json:"epoch"` // raised by every write
	State       State     `json:"state"`
	Number      int64     `json:"number"` // of the newest release; never used twice
	// Since is the first epoch of this journal: what carries an earlier one is of a journal that is gone. 0: of the first journal.
	Since int64 `json:"since,omitempty"`

	Good      *Mark     `json:"good,omitempty"`     // the newest decided release
	Previous  *Mark     `json:"previous,omitempty"` // the one before it
	BakeUntil time.Time `json:"bakeUntil,omitzero"`
	Inventory string    `json:"inventory,omitempty"` // bundle of what is owned: while a release is open, by the old world and the new one

	Release *Release `json:"release,omitempty"` // the open one
	Bad     []Bad    `json:"bad,omitempty"`     // commits that failed here, oldest first
	Pin     *Pin     `json:"pin,omitempty"`
	Last    *Outcome `json:"last,omitempty"` // of the newest release that ended
	Request string   `json:"request,omitempty"`

	revision string // resourceVersion of its Secret; empty: not stored
	missing  bool
}

// Mark is a release that was decided.
type Mark struct {
	Release int64     `json:"release"`
	Commit  string    `json:"commit"`
	Source  string    `json:"source,omitempty"` // what it was rendered from: repository, branch and path
	Set     string    `json:"set"`              // bundle
	Policy  string    `json:"policy,omitempty"` // bundle; empty: the default policy
	At      time.Time `json:"at"`
	Ill     []string  `json:"ill,omitempty"` // what was unhealthy before it and stayed so
}

// Release is the open release: what it brings, what was there before, and how far it is.
type Release struct {
	Number  int64     `json:"number"`
	Commit  string    `json:"commit"`
	Kind    string    `json:"kind"` // deploy, rollback, return or delete
	By      string    `json:"by,omitempty"`
	Subject string    `json:"subject,omitempty"`
	BegunAt time.Time `json:"begunAt"`
	Epoch   int64     `json:"epoch"`             // of its begin: the stamp of what it creates
	Request string    `json:"request,omitempty"` // of a person, that it carries out

	Source string `json:"source,omitempty"` // what it was rendered from
	Set    string `json:"set"`              // bundles
	Plan   string `json:"plan"`
	Policy string `json:"policy,omitempty"`
	Images string `json:"images,omitempty"` // of adopted objects, as they were
	Before string `json:"before,omitempty"` // the inventory when it began

	Phase      object.Phase `json:"phase,omitzero"` // the one that waits
	PhaseBegan time.Time    `json:"phaseBegan,omitzero"`
	Waiting    []string     `json:"waiting,omitempty"`
	Failure    *Failure     `json:"failure,omitempty"` // why it is being undone
}

// Failure is why a release is undone.
type Failure struct {
	Reason  string       `json:"reason"` // CamelCase
	Phase   object.Phase `json:"phase,omitzero"`
	Object  string       `json:"object,omitempty"`
	Message string       `json:"message"`
}

// Bad is a commit that failed here. It is not tried again by itself (protocol rule 9).
type Bad struct {
	Commit  string    `json:"commit"`
	Release int64     `json:"release"`
	Reason  string    `json:"reason"`
	At      time.Time `json:"at"`
}

// Pin holds the environment on a commit that a person chose.
type Pin struct {
	Commit string    `json:"commit"`
	By     string    `json:"by"`
	At     time.Time `json:"at"`
}

// Outcome is how the newest release ended.
type Outcome struct {
	Number     int64        `json:"number"`
	Commit     string       `json:"commit"`
	Kind       string       `json:"kind,omitempty"`
	By         string       `json:"by,omitempty"`
	Subject    string       `json:"subject,omitempty"`
	BegunAt    time.Time    `json:"begunAt,omitzero"`
	Outcome    string       `json:"outcome"`
	Reason     string       `json:"reason,omitempty"`
	Phase      object.Phase `json:"phase,omitzero"`
	Object     string       `json:"object,omitempty"`
	Message    string       `json:"message,omitempty"`
	FinishedAt time.Time    `json:"finishedAt"`
	Kept       []string     `json:"kept,omitempty"`
}

// What the head keeps of lists and texts that others wrote, as bytes of its JSON. Together
// they stay far below maxHead: a head that could not be written any more would stand still for ever.
const (
	badKept     = 50 // commits
	wordKept    = 60
	lineKept    = 400
	textKept    = 1000
	waitingKept = 3 << 10
	illKept     = 5 << 10
	outcomeKept = 3 << 10
)

// Exists reports that the head is stored.
func (h Head) Exists() bool { return h.revision != "" }

// Missing reports that the head is gone, and that this is what its spare says. It must be rebuilt before anything else is written.
func (h Head) Missing() bool { return h.missing }

// Quarantined reports that a commit failed here.
func (h Head) Quarantined(commit string) bool {
	return commit != "" && slices.ContainsFunc(h.Bad, func(b Bad) bool { return b.Commit == commit })
}

// next is the head after one more write.
func (h Head) next(s State) Head {
	h.Version, h.State, h.missing = Version, s, false
	h.Epoch++
	return h
}

// First is the head of an environment that has none yet. It is stored before the first bundle, so that bundles without a head mean
// that the head was lost. number is that of the newest release that an earlier journal, which is gone, is known to have had; if
// there was one, the epochs go on from the Unix time: no journal writes its head once a second all its life.
func (h Head) First(number int64, now time.Time) Head {
	h = h.next(Idle)
	h.Number = number
	if number > 0 {
		h.Epoch = max(h.Epoch, now.Unix())
		h.Since = h.Epoch
	}
	return h
}

// Found is the head of an environment that begins anew over what an earlier journal, which is gone, left in the cluster.
func (h Head) Found(inventory string) Head {
	h = h.next(Idle)
	h.Inventory = inventory
	return h
}

// Prepare opens a release; union is the inventory of the old world and the new one (S3). With
// pin, the environment is held on its commit from now on.
func (h Head) Prepare(rel Release, union string, pin *Pin) Head {
	h = h.next(Prepared)
	rel.Epoch = h.Epoch
	rel.By, rel.Subject = clip(rel.By, lineKept), clip(rel.Subject, lineKept)
	h.Number, h.Inventory, h.Release = rel.Number, union, &rel
	if rel.Request != "" { // of a person: what stood against the commit until now counts no more
		h.Request, h.Pin = rel.Request, nil
		h.Bad = slices.DeleteFunc(slices.Clone(h.Bad), func(b Bad) bool { return b.Commit == rel.Commit })
	}
	if pin != nil {
		h.Pin = &Pin{Commit: pin.Commit, By: clip(pin.By, lineKept), At: pin.At}
	}
	return h
}

// TakeOver is the head of another process's release as this process goes on with it.
func (h Head) TakeOver() Head { return h.next(h.State) }

// Wait records what the release waits for.
func (h Head) Wait(phase object.Phase, since time.Time, what []string) Head {
	h = h.next(h.State)
	rel := *h.Release
	rel.Phase, rel.PhaseBegan, rel.Waiting = phase, since, some(what, waitingKept)
	h.Release = &rel
	return h
}

// Commit is the only decision (S11).
func (h Head) Commit() Head { return h.next(Committed) }

// Abort turns the release round (R1).
func (h Head) Abort(why Failure) Head {
	h = h.next(Aborting)
	rel := *h.Release
	why.Reason, why.Object, why.Message = clip(why.Reason, wordKept), clip(why.Object, lineKept), clip(why.Message, textKept)
	rel.Failure = &why
	h.Release = &rel
	return h
}

// Done closes a decided release (S13).
func (h Head) Done(mark Mark, message, inventory string, bakeUntil, now time.Time) Head {
	h = h.next(Idle)
	h.Last = h.Release.ended(Outcome{Outcome: "Succeeded", Message: message, FinishedAt: now})
	if h.Release.Kind == "return" {
		h.Previous = nil // what it came from fell ill: it is nothing to go back to
	} else if h.Good == nil || h.Good.Set != mark.Set || h.Good.Policy != mark.Policy {
		h.Previous = h.Good.withoutIll() // only what bakes is compared with what was ill before
	}
	mark.Ill = some(mark.Ill, illKept)
	h.Good, h.Inventory, h.BakeUntil, h.Release = &mark, inventory, bakeUntil, nil
	return h
}

// Undone closes a release that was undone (R3); bad says whether its commit is remembered as bad.
func (h Head) Undone(out Outcome, inventory string, bad bool) Head {
	h = h.next(Idle)
	h.Last = h.Release.ended(out)
	out = *h.Last
	if bad {
		h = h.quarantine(Bad{Commit: out.Commit, Release: out.Number, Reason: out.Reason, At: out.FinishedAt})
	}
	if h.Release.Kind == "return" {
		h.Previous = nil // it failed too: do not try for ever
	}
	if h.Release.Request != "" && h.Pin != nil && h.Pin.Commit == h.Release.Commit {
		h.Pin = nil // of this release: it holds nothing
	}
	h.Inventory, h.Release = inventory, nil
	return h
}

// ended is how the release is remembered.
func (r *Release) ended(out Outcome) *Outcome {
	out.Number, out.Commit, out.Kind, out.By, out.Subject, out.BegunAt = r.Number, r.Commit, r.Kind, r.By, r.Subject, r.BegunAt
	out.Reason, out.Object, out.Message = clip(out.Reason, wordKept), clip(out.Object, lineKept), clip(out.Message, textKept)
	out.Kept = some(out.Kept, outcomeKept)
	return &out
}

func (m *Mark) withoutIll() *Mark {
	if m == nil {
		return nil
	}
	old := *m
	old.Ill = nil
	return &old
}

// Quarantine remembers a commit as bad although its release was decided: it fell ill while it baked.
func (h Head) Quarantine(commit string, release int64, why Failure, now time.Time) Head {
	return h.next(h.State).quarantine(Bad{Commit: commit, Release: release, Reason: why.Reason, At: now})
}

func (h Head) quarantine(b Bad) Head {
	b.Reason = clip(b.Reason, wordKept)
	bad := slices.DeleteFunc(slices.Clone(h.Bad), func(x Bad) bool { return x.Commit == b.Commit })
	bad = append(bad, b)
	h.Bad = bad[max(0, len(bad)-badKept):]
	return h
}

// Lift forgets that a commit is bad (all of them, if it is empty), and the pin.
func (h Head) Lift(commit, request string) Head {
	h = h.next(h.State)
	h.Pin, h.Request = nil, request
	h.Bad = slices.DeleteFunc(slices.Clone(h.Bad), func(b Bad) bool { return commit == "" || b.Commit == commit })
	return h
}
