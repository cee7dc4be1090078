// Package probe asks a running service whether it answers.
//
// One probe is one try; whoever wants another asks again.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

// Error says what did not answer as it should.
type Error struct {
	Target string // address, or URL without credentials and query
	Reason string // what was wrong, and what was wanted
	Got    string // how the answer began: at most 200 printable bytes; empty if there was none or it may not be shown
	Cause  error
}

func (e *Error) Error() string {
	text := e.Target + ": " + e.Reason
	if e.Cause != nil {
		text += ": " + printable(e.Cause.Error(), causeLimit) // it may quote what the service sent
	}
	if e.Got != "" {
		text += fmt.Sprintf("; the answer begins with %q", e.Got)
	}
	return text
}

const causeLimit = 400 // bytes

// printable makes foreign text fit for a line on a terminal, and cuts it to limit bytes.
func printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r) || unicode.IsControl(r):
			return ' '
		case !unicode.IsPrint(r) || r == utf8.RuneError:
			return -1
		}
		return r
	}, s[:min(len(s), 4*limit)])
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return s
}

func (e *Error) Unwrap() error { return e.Cause }

// ErrForbiddenAddress says that a name led to a link-local address: there clouds serve the credentials of the machine.
var ErrForbiddenAddress = errors.New("link-local addresses are never asked")

const defaultTimeout = 5 * time.Second

// TCP opens one connection.
type TCP struct {
	Address string        // host:port
	Timeout time.Duration // default 5s
}

// Probe returns nil if the service accepts a connection, else an *Error.
func (p TCP) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, timeoutOr(p.Timeout))
	defer cancel()
	conn, err := dialer().DialContext(ctx, "tcp", p.Address)
	if err != nil {
		return &Error{Target: p.Address, Reason: "does not accept a connection", Cause: err}
	}
	return conn.Close()
}

// dialer looks at addresses after names were resolved, so that no name can lead where no address may.
func dialer() *net.Dialer {
	return &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("parse address %q: %w", address, err)
		}
		if ip := ap.Addr().Unmap(); forbidden(ip) {
			return fmt.Errorf("%s: %w", ip, ErrForbiddenAddress)
		}
		return nil
	}}
}

func forbidden(ip netip.Addr) bool {
	if ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast() || awsMetadata.Contains(ip.WithZone("")) {
		return true
	}
	if v4, ok := embedded(ip); ok { // a gateway would lead there in one more step
		return v4.IsLinkLocalUnicast()
	}
	return false
}

// awsMetadata is where EC2 serves credentials over IPv6: not link-local, but meant so.
var awsMetadata = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x00, 0x0e, 0xc2}), 32)

// embedded is the IPv4 address in one of NAT64 (64:ff9b::/96).
func embedded(ip netip.Addr) (netip.Addr, bool) {
	b := ip.As16()
	if !ip.Is6() || [12]byte(b[:12]) != [12]byte{0, 0x64, 0xff, 0x9b} {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte(b[12:])), true
}

func timeoutOr(d time.Duration) time.Duration {
	if d <= 0 {
		return defaultTimeout
	}
	return d
}
