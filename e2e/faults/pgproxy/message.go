package pgproxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

const (
	// limit is how much of a message, and of an answer that is held, is kept in memory. What is longer streams through.
	limit = 64 << 10
	// header is the length of a message's kind and length.
	header = 5
)

// message is one that begins to arrive.
type message struct {
	kind byte
	head []byte // its header and beginning: the whole of it, if that is no longer than limit. Valid until the next message
	rest int64  // what is still to come
}

// body is what has come of it, without its header.
func (m message) body() []byte { return m.head[header:] }

// end is one end of a session: the client or the server. It is read from and written to in messages.
type end struct {
	net.Conn
	in   *bufio.Reader
	out  *bufio.Writer
	head []byte
}

func newEnd(c net.Conn) *end {
	return &end{Conn: c, in: bufio.NewReaderSize(c, limit), out: bufio.NewWriterSize(c, limit), head: make([]byte, limit)}
}

// next begins to read a message.
func (e *end) next() (message, error) {
	if _, err := io.ReadFull(e.in, e.head[:header]); err != nil {
		return message{}, err
	}
	size := int64(binary.BigEndian.Uint32(e.head[1:header])) + 1
	if size < header {
		return message{}, fmt.Errorf("read message %q: its length is %d", e.head[0], size-1)
	}
	n := min(size, limit)
	if _, err := io.ReadFull(e.in, e.head[header:n]); err != nil {
		return message{}, err
	}
	return message{kind: e.head[0], head: e.head[:n], rest: size - n}, nil
}

// idle reports that to read a message may take a while.
func (e *end) idle() bool { return e.in.Buffered() < header }

// pass writes what next began to read, to its end. What cannot be read shows at the next message.
func (e *end) pass(m message, to io.Writer) {
	_, _ = to.Write(m.head)
	_, _ = io.CopyN(to, e.in, m.rest)
}

// whole is a copy of what next began to read, to its end.
func (e *end) whole(m message) []byte {
	var b bytes.Buffer
	e.pass(m, &b)
	return b.Bytes()
}

// Write cannot fail: what is said to somebody who is gone is lost, which is what all of this is about.
func (e *end) Write(b []byte) (int, error) {
	_, _ = e.out.Write(b)
	return len(b), nil
}

func (e *end) flush() { _ = e.out.Flush() }

// hangUp says no more. What the other side says is still read.
func (e *end) hangUp() {
	if c, ok := e.Conn.(*net.TCPConn); ok {
		_ = c.CloseWrite()
	}
}

// reset closes by RST.
func (e *end) reset() {
	if c, ok := e.Conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	_ = e.Close()
}

// text cuts a text that ends with a zero byte from the beginning of a message's body. Of one that is longer than limit it is the beginning.
func text(body []byte) (first string, rest []byte) {
	before, after, _ := bytes.Cut(body, []byte{0})
	return string(before), after
}
