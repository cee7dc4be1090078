package journal

import (
	"context"
	"fmt"
	"maps"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// collectAfter is how many Secrets are written before garbage is worth the requests to collect it.
const collectAfter = 64

// grace is how old garbage must be: another daemon may just be storing it.
const grace = 10 * time.Minute

// Collect deletes what no kept bundle names, the first time in a process and then whenever
// enough has been written since. It returns how many Secrets it deleted. The head must be idle:
// what an open release needs and keep does not name would go.
func (j *Journal) Collect(ctx context.Context, keep ...string) (int, error) {
	j.mu.Lock()
	due := !j.swept || j.fresh >= collectAfter
	j.mu.Unlock()
	if !due {
		return 0, nil
	}
	names := map[string]bool{}
	for _, digest := range keep {
		if digest == "" {
			continue
		}
		if _, ok := j.parts(digest); !ok {
			if _, err := j.Load(ctx, digest); err != nil {
				return 0, fmt.Errorf("collect garbage: %w", err)
			}
		}
		parts, _ := j.parts(digest)
		for _, p := range parts {
			names[p] = true
		}
	}
	list, err := j.Metadata.List(ctx, metav1.ListOptions{LabelSelector: j.Selector() + "," + partLabel + "=bundle"})
	if err != nil {
		return 0, fmt.Errorf("collect garbage: %w", classify(err))
	}
	deleted := 0
	for _, item := range list.Items {
		if names[item.Name] {
			continue
		}
		if j.Now().Sub(item.CreationTimestamp.Time) < grace {
			names[item.Name] = true // still there: the next time
			continue
		}
		err := j.Secrets.Delete(ctx, item.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(item.UID))})
		if err != nil && !apierrors.IsNotFound(err) {
			return deleted, fmt.Errorf("collect garbage: %w", classify(err))
		}
		deleted++
	}
	j.forgetAllBut(names)
	return deleted, nil
}

func (j *Journal) knows(name string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.known[name]
}

func (j *Journal) learn(names ...string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.known == nil {
		j.known = map[string]bool{}
	}
	for _, name := range names {
		j.known[name] = true
	}
}

func (j *Journal) madeOf(bundle string, parts []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.chunks == nil {
		j.chunks = map[string][]string{}
	}
	j.chunks[bundle] = parts
}

func (j *Journal) parts(bundle string) ([]string, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	parts, ok := j.chunks[bundle]
	return parts, ok
}

func (j *Journal) forgetAllBut(keep map[string]bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	maps.DeleteFunc(j.known, func(name string, _ bool) bool { return !keep[name] })
	maps.DeleteFunc(j.chunks, func(_ string, parts []string) bool { return !keep[parts[0]] })
	j.fresh, j.swept = 0, true
}
