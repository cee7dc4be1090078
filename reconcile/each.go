package reconcile

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// writers is how many requests of one release are under way at once; the API
// server's own priority and fairness does the rest.
const writers = 16

// each calls do for every item, side by side, and returns the first error. An error stops what has not begun.
func each[T any](ctx context.Context, items []T, do func(context.Context, T) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for _, item := range items {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return do(ctx, item) })
	}
	return g.Wait()
}
