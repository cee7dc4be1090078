package remote

import (
	"context"
	"fmt"
	"io"

	"github.com/nexus-platform/reconciler/gitsource/internal/limit"
)

// Client asks one repository. It may be used concurrently.
type Client struct {
	addr   Address
	limits limit.Limits
	link   link
}

// link is one way to reach a repository.
type link interface {
	// tip returns the hash of a full ref, empty if there is none.
	tip(ctx context.Context, ref string, w *watch) (string, error)
	// pack starts to send a commit and what leads to it. close ends it.
	pack(ctx context.Context, q query, w *watch) (from io.Reader, close func(), err error)
}

// query says what a pack is to hold: want, or what ref points at where the server gives out nothing
// else, and all that leads there, without what leads to haves.
type query struct {
	want, ref string
	haves     []string
}

// New prepares a client; nothing is asked yet. scratch is a directory for short-lived files.
func New(r Remote, limits limit.Limits, scratch string) (*Client, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	addr, err := r.Address()
	if err != nil {
		return nil, err
	}
	c := &Client{addr: addr, limits: limits}
	switch addr.Scheme {
	case "file":
		c.link = &fileLink{dir: addr.Path}
	case "ssh":
		c.link, err = newSSH(r, addr, limits, scratch)
	default:
		c.link, err = newHTTP(r, addr, limits)
	}
	return c, err
}

// Tip returns the hash that refs/heads/<branch> points at.
func (c *Client) Tip(ctx context.Context, branch string) (string, error) {
	url := c.addr.String()
	ctx, w := newWatch(ctx, url, c.limits.Phase)
	defer w.stop()
	tip, err := c.link.tip(ctx, "refs/heads/"+branch, w)
	if err != nil {
		return "", Explain(ctx, url, err)
	}
	if tip == "" {
		return "", &BranchMissingError{URL: url, Branch: branch}
	}
	return tip, nil
}

// Pack streams the commit want and what leads to it but not to haves, in Git's pack format. Over
// version 0 of the protocol a server only gives out the tip of the branch, so the pack may hold more.
func (c *Client) Pack(ctx context.Context, want, branch string, haves []string) (io.ReadCloser, error) {
	url := c.addr.String()
	ctx, w := newWatch(ctx, url, c.limits.Phase)
	from, end, err := c.link.pack(ctx, query{want: want, ref: "refs/heads/" + branch, haves: haves}, w)
	if err != nil {
		err = Explain(ctx, url, err)
		w.stop()
		return nil, err
	}
	explain := func(err error) error { return Explain(ctx, url, err) }
	return &packReader{from: from, watch: w, explain: explain, close: end, max: c.limits.FetchBytes}, nil
}

// wanted chooses what a server can be asked for.
func (q query) wanted(a advert, url string) (string, error) {
	if a.v2 {
		return q.want, nil
	}
	if a.tip == "" {
		return "", fmt.Errorf("%s has gone from %s while it was fetched", q.ref, url)
	}
	return a.tip, nil
}
