package remote

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/nexus-platform/reconciler/gitsource/internal/limit"
)

// Git's wire protocol, as much of it as a reader of one branch needs: version 2, which asks for that
// branch alone, and version 0 for servers that do not know it. go-git speaks version 0 only, keeps
// every advertised ref in memory, and cannot be stopped during an ssh handshake.

type packetKind int

const (
	data packetKind = iota
	flush
	delimiter
	end
)

const maxPacket = 65520

// packets reads pkt-lines.
type packets struct{ from *bufio.Reader }

func newPackets(r io.Reader) *packets { return &packets{bufio.NewReaderSize(r, maxPacket)} }

// next returns the payload of one packet, valid until the next call. It is the server's ERR as an error.
func (p *packets) next() ([]byte, packetKind, error) {
	head, err := p.from.Peek(4)
	if err != nil {
		if len(head) > 0 {
			err = cut(err)
		}
		return nil, 0, err
	}
	n, err := strconv.ParseUint(string(head), 16, 16)
	if err != nil {
		return nil, 0, errors.New("the answer is not in Git's format")
	}
	_, _ = p.from.Discard(4)
	switch {
	case n == 0:
		return nil, flush, nil
	case n == 1:
		return nil, delimiter, nil
	case n == 2:
		return nil, end, nil
	case n < 4 || n > maxPacket:
		return nil, 0, fmt.Errorf("the answer has a packet of %d bytes, which Git does not know", n)
	}
	payload, err := p.from.Peek(int(n) - 4)
	if err != nil {
		return nil, 0, cut(err)
	}
	_, _ = p.from.Discard(len(payload))
	if bytes.HasPrefix(payload, []byte("ERR ")) {
		return nil, 0, errServer
	}
	return payload, data, nil
}

// cut makes an error of an end in the middle.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// errServer stands for what a server says went wrong. Its words are not repeated (see Explain).
var errServer = errors.New("the server reports an error of its own; see its log")

// line is next without the line's end.
func (p *packets) line() (string, packetKind, error) {
	b, kind, err := p.next()
	return strings.TrimSuffix(string(b), "\n"), kind, err
}

// advert is what a server says first.
type advert struct {
	v2   bool
	tip  string // of the branch that was asked for; in version 2 not known yet
	caps string
}

// readAdvert reads capabilities and, in version 0, all refs, of which it keeps one.
func readAdvert(p *packets, ref string, maxRefs int) (a advert, err error) {
	started, service := false, false
	for range maxRefs + 16 { // beside the refs: service, version and shallow lines
		s, kind, err := p.line()
		switch {
		case err != nil && started:
			return a, cut(err)
		case err != nil:
			return a, err
		case kind == flush && service && !started: // http says first what service answers
			service = false
			continue
		case kind == flush:
			return a, a.check()
		case kind != data:
			return a, errors.New("the list of refs is not in Git's format")
		case !started && strings.HasPrefix(s, "# service="):
			service = true
			continue
		case !started && s == "version 2":
			a.v2 = true
		case a.v2:
			a.caps += " " + s
		case !started && s == "version 1":
		case strings.HasPrefix(s, "shallow "):
			return a, errShallow
		default:
			if err := a.take(s, ref); err != nil {
				return a, err
			}
		}
		started = true
	}
	return a, &limit.Error{Path: "list of refs", Limit: "Refs", Max: int64(maxRefs)}
}

var errShallow = errors.New("the repository there is a shallow clone; its history cannot be followed")

// take reads one ref of version 0; capabilities hang on the first.
func (a *advert) take(s, ref string) error {
	s, caps, first := strings.Cut(s, "\x00")
	if first {
		a.caps = " " + caps
	}
	hash, name, ok := strings.Cut(s, " ")
	if !ok || !isHash(hash) {
		return errors.New("the list of refs is not in Git's format")
	}
	if name == ref {
		a.tip = hash
	}
	return nil
}

func (a *advert) check() error {
	if strings.Contains(a.caps+" ", " object-format=sha256 ") {
		return errors.New("the repository there uses SHA-256, which is not supported")
	}
	return nil
}

func (a *advert) has(capability string) bool {
	return strings.Contains(a.caps+" ", " "+capability+" ") || strings.Contains(a.caps, " "+capability+"=")
}

func isHash(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == 40
}

// lines writes pkt-lines.
type lines struct{ bytes.Buffer }

func (l *lines) add(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	fmt.Fprintf(&l.Buffer, "%04x%s", len(s)+4, s)
}

const agent = "agent=nexus-reconciler"

// askTip is version 2's request for one ref.
func askTip(ref string) []byte {
	var l lines
	l.add("command=ls-refs\n")
	l.add(agent)
	l.WriteString("0001")
	l.add("ref-prefix %s\n", ref)
	l.WriteString("0000")
	return l.Bytes()
}

// readTip reads the answer to askTip; empty if there is no such ref.
func readTip(p *packets, ref string, maxRefs int) (tip string, err error) {
	for n := 0; ; n++ {
		s, kind, err := p.line()
		if err != nil {
			return "", cut(err)
		}
		if kind != data {
			return tip, nil
		}
		if n > maxRefs {
			return "", &limit.Error{Path: "list of refs", Limit: "Refs", Max: int64(maxRefs)}
		}
		fields := strings.Split(s, " ")
		if len(fields) < 2 || (!isHash(fields[0]) && fields[0] != "unborn") {
			return "", errors.New("the list of refs is not in Git's format")
		}
		if fields[1] == ref && isHash(fields[0]) {
			tip = fields[0]
		}
	}
}

// askPack is the request for a commit and what leads to it, without what leads to haves.
func askPack(a advert, want string, haves []string) ([]byte, error) {
	var l lines
	if a.v2 {
		l.add("command=fetch\n")
		l.add(agent)
		l.WriteString("0001")
		l.add("ofs-delta\n")
		l.add("no-progress\n")
		l.add("want %s\n", want)
	} else {
		if !a.has("side-band-64k") {
			return nil, errors.New("the server is too old: it lacks side-band-64k")
		}
		caps := " side-band-64k"
		for _, c := range []string{"ofs-delta", "no-progress"} {
			if a.has(c) {
				caps += " " + c
			}
		}
		l.add("want %s%s %s\n", want, caps, agent)
		l.WriteString("0000")
	}
	for _, h := range haves {
		l.add("have %s\n", h)
	}
	l.add("done\n")
	if a.v2 {
		l.WriteString("0000")
	}
	return l.Bytes(), nil
}

// band reads the pack out of the answer to askPack.
type band struct {
	p       *packets
	v2      bool
	began   bool
	pending []byte
}

func (b *band) Read(out []byte) (int, error) {
	for len(b.pending) == 0 {
		payload, kind, err := b.p.next()
		if err != nil {
			return 0, cut(err) // a pack ends with a flush
		}
		if !b.began {
			if err := b.head(payload, kind); err != nil {
				return 0, err
			}
			if !b.began || b.v2 {
				continue
			}
		}
		switch {
		case kind != data:
			return 0, io.EOF
		case len(payload) == 0:
			return 0, errors.New("the pack is not in Git's format")
		case payload[0] == 1:
			b.pending = payload[1:]
		case payload[0] == 3:
			return 0, errServer
		case payload[0] != 2: // 2 is progress
			return 0, errors.New("the pack is not in Git's format")
		}
	}
	n := copy(out, b.pending)
	b.pending = b.pending[n:]
	return n, nil
}

// head passes over what comes before the pack: acknowledgements, sections of version 2.
func (b *band) head(payload []byte, kind packetKind) error {
	s := strings.TrimSuffix(string(payload[:min(len(payload), 64)]), "\n")
	switch {
	case strings.HasPrefix(s, "shallow"):
		return errShallow
	case b.v2 && kind == flush:
		return errors.New("the server sent no pack")
	case b.v2:
		b.began = s == "packfile"
	case kind == data && len(payload) > 0 && payload[0] <= 3:
		b.began = true
	case kind != data || (s != "NAK" && !strings.HasPrefix(s, "ACK ")):
		return errors.New("the server sent no pack")
	}
	return nil
}
