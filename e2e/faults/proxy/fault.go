package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nexus-platform/reconciler/e2e/apicount"
)

// Mode is what is done to a write.
type Mode string

// The modes.
const (
	None            Mode = ""
	KillBefore      Mode = "kill-before"       // the daemon dies, the API server never hears of the write
	KillAfterApply  Mode = "kill-after-apply"  // the API server does it, the daemon dies before the answer
	KillAfterAnswer Mode = "kill-after-answer" // the daemon dies when it has the answer
	DropBefore      Mode = "drop-before"       // the connection breaks, the API server never hears of it
	DropAnswer      Mode = "drop-answer"       // the API server does it, the connection breaks
	Late            Mode = "late"              // the connection breaks, the API server hears of it later
	Conflict        Mode = "409"
	Throttled       Mode = "429"
	Internal        Mode = "500"
	Unavailable     Mode = "503"
	TimedOut        Mode = "504-after-apply"
	HalfClose       Mode = "half-close"        // the API server does it, the connection ends in the middle of the answer
	Reset           Mode = "reset"             // the API server does it, the connection and all others on it are reset
	CutJSON         Mode = "cut-json"          // the API server does it, the answer is half a document
	Forbidden       Mode = "403"               // an access right is missing
	Invalid         Mode = "422"               // the API server never accepts it
	Denied          Mode = "denied"            // a webhook refuses it
	Away            Mode = "away"              // from here on nobody answers, for a while
	Stop            Mode = "stop"              // the daemon is stopped in mid-request (SIGSTOP) for longer than its Lease
	Terminate       Mode = "terminate"         // the daemon is asked to end (SIGTERM)
	Hold            Mode = "hold-watches"      // from here on watches tell nothing, for a while
	Lose            Mode = "lose-watches"      // what watches would have told for a while is lost, then they end as expired
	Edit            Mode = "edit"              // somebody changes the object that is written, just before
	Delete          Mode = "delete"            // somebody deletes the object that is written, just before
	Push            Mode = "push"              // a newer commit arrives
	Withdraw        Mode = "late-withdrawn"    // as late, and meanwhile a newer commit takes the release back
	LoseHead        Mode = "head-deleted"      // somebody deletes the head
	LoseBundle      Mode = "bundle-deleted"    // somebody deletes a bundle
	LoseNamespace   Mode = "namespace-deleted" // somebody deletes a namespace of the release
)

// Wire are the modes that happen to a request on its way, which no person has to do with.
var Wire = []Mode{
	KillBefore, KillAfterApply, KillAfterAnswer, DropBefore, DropAnswer, Late, Conflict, Throttled, Internal, Unavailable, TimedOut,
	HalfClose, Reset, CutJSON,
}

// Refusals are answers that say no.
var Refusals = []Mode{Forbidden, Invalid, Denied}

// World are the modes that happen around a request.
var World = []Mode{Away, Stop, Terminate, Hold, Lose, Edit, Delete, Push, Withdraw, LoseHead, LoseBundle, LoseNamespace}

// Kills reports that the daemon ends by it and has to be started again.
func (m Mode) Kills() bool {
	return m == KillBefore || m == KillAfterApply || m == KillAfterAnswer || m == Terminate
}

// Reaches reports that the API server hears of the write.
func (m Mode) Reaches() bool {
	return !slices.Contains([]Mode{KillBefore, DropBefore, Conflict, Throttled, Internal, Unavailable, Forbidden, Invalid, Denied, Away}, m)
}

// Plan is one fault.
type Plan struct {
	Mode  Mode
	At    int    // number of the write, from 1; 0: the first of Step and Name
	Step  Step   // where At is 0
	Name  string // where At is 0: how the name of what is written begins
	Shown bool   // At counts what shows the release (Projection), not what carries it out
	// Lasting: it is done to every write that it hits, until Lift.
	Lasting bool
}

func (p Plan) hits(w *Write) bool {
	if p.Mode == None {
		return false
	}
	return p.At > 0 && p.At == w.N && p.Shown == (w.Step == Projection) || p.At == 0 && p.Step == w.Step && strings.HasPrefix(w.Name, p.Name)
}

// serve does what the mode says.
func (p *Proxy) serve(w http.ResponseWriter, r *http.Request, q *request, mode Mode) {
	switch mode {
	case None:
		reply(w, q.forward())
	case KillBefore:
		p.Kill(*q.entry)
		hangUp(r)
	case KillAfterApply:
		q.forward()
		p.Kill(*q.entry)
		hangUp(r)
	case KillAfterAnswer:
		reply(w, q.forward())
		p.Kill(*q.entry)
	case DropBefore:
		panic(http.ErrAbortHandler)
	case DropAnswer:
		q.forward()
		panic(http.ErrAbortHandler)
	case Late, Withdraw:
		if mode == Withdraw {
			p.Meanwhile(mode, *q.entry)
		}
		p.Later(p.LateBy, func() {
			p.mu.Lock()
			q.entry.Late, q.entry.Arrived = true, time.Now()
			p.mu.Unlock()
			q.forward()
		})
		panic(http.ErrAbortHandler)
	case Conflict, Throttled, Internal, Unavailable, Forbidden, Invalid, Denied:
		refuse(w, mode, q.entry.Request)
	case TimedOut:
		q.forward()
		refuse(w, mode, q.entry.Request)
	case HalfClose, CutJSON:
		cut(w, q.forward(), mode, r)
	case Reset:
		q.forward()
		reset(r)
	default:
		p.meanwhile(w, q, mode)
	}
}

// meanwhile does what happens around a request that is itself answered as ever, but for Away.
func (p *Proxy) meanwhile(w http.ResponseWriter, q *request, mode Mode) {
	switch mode {
	case Away, Hold, Lose:
		p.Meanwhile(mode, *q.entry)
		if mode == Away {
			hangUp(q.request)
		}
		reply(w, q.forward())
	case Stop:
		answer := q.forward()
		p.Meanwhile(mode, *q.entry)
		reply(w, answer)
	default:
		p.Meanwhile(mode, *q.entry)
		reply(w, q.forward())
	}
}

// hangUp closes the connection of a request, with all that goes on on it.
func hangUp(r *http.Request) {
	if c := apicount.Connection(r); c != nil {
		_ = c.Close()
	}
	panic(http.ErrAbortHandler)
}

// reset closes the connection of a request by RST.
func reset(r *http.Request) {
	if c, ok := apicount.Connection(r).(*tls.Conn); ok {
		if raw, ok := c.NetConn().(*net.TCPConn); ok {
			_ = raw.SetLinger(0)
			_ = raw.Close()
		}
	}
	panic(http.ErrAbortHandler)
}

// cut sends half an answer: as if it were whole, or with an end of the connection in its middle.
func cut(w http.ResponseWriter, answer *httptest.ResponseRecorder, mode Mode, r *http.Request) {
	body := answer.Body.Bytes()
	half := body[:len(body)/2]
	if mode == CutJSON {
		answer.Body = bytes.NewBuffer(half)
		answer.Header().Del("Content-Length")
		reply(w, answer)
		return
	}
	for k, v := range answer.Header() {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(answer.Code)
	_, _ = w.Write(half)
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	hangUp(r)
}

// refuse answers as an API server does.
func refuse(w http.ResponseWriter, mode Mode, q apicount.Request) {
	s := metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure}
	s.Details = &metav1.StatusDetails{Name: q.Name, Kind: q.Resource}
	switch mode {
	case Conflict:
		s.Code, s.Reason, s.Message = http.StatusConflict, metav1.StatusReasonConflict, fmt.Sprintf("Operation cannot be fulfilled on %s %q: the object has been modified; please apply your changes to the latest version and try again", q.Resource, q.Name)
	case Throttled:
		s.Code, s.Reason, s.Message = http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, "too many requests, please try again later."
		s.Details.RetryAfterSeconds = 1
		w.Header().Set("Retry-After", "1")
	case Internal:
		s.Code, s.Reason, s.Message = http.StatusInternalServerError, metav1.StatusReasonInternalError, "Internal error occurred: etcdserver: leader changed"
	case Unavailable:
		s.Code, s.Reason, s.Message = http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "apiserver is shutting down"
	case TimedOut:
		s.Code, s.Reason, s.Message = http.StatusGatewayTimeout, metav1.StatusReasonTimeout, "Timeout: request did not complete within the allotted timeout"
	case Forbidden:
		s.Code, s.Reason, s.Message = http.StatusForbidden, metav1.StatusReasonForbidden, fmt.Sprintf("%s %q is forbidden: User cannot %s resource", q.Resource, q.Name, q.Verb)
	case Invalid:
		s.Code, s.Reason, s.Message = http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, fmt.Sprintf("%s %q is invalid: spec: Invalid value", q.Resource, q.Name)
	case Denied:
		s.Code, s.Reason, s.Message = http.StatusForbidden, metav1.StatusReasonForbidden, `admission webhook "guard.example.com" denied the request: not today`
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(s.Code))
	_ = json.NewEncoder(w).Encode(s)
}
