package typed

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
)

// locate finds the first leaf that makes an object unreadable, and the error that it
// alone causes: the errors of the Go types do not say where. The path is made of keys
// (string) and indexes (int); it is empty if only the whole is at fault.
func locate(body map[string]any, readable func(map[string]any) error) (path []any, err error) {
	err = readable(body)
	if err == nil {
		return nil, nil
	}
	skeleton := runtime.DeepCopyJSON(body)
	var at any = skeleton
	for {
		step, next, fault := narrow(at, func() error { return readable(skeleton) })
		if fault == nil {
			return path, err
		}
		path, at, err = append(path, step), next, fault
	}
}

// narrow leaves the first child of at that is at fault even without its siblings. If
// there is none, at is as before and the error is nil.
func narrow(at any, readable func() error) (step, next any, err error) {
	switch at := at.(type) {
	case map[string]any:
		all := maps.Clone(at)
		for _, key := range slices.Sorted(maps.Keys(all)) {
			clear(at)
			at[key] = all[key]
			if err := readable(); err != nil {
				return key, all[key], err
			}
		}
		maps.Copy(at, all)
	case []any:
		all := slices.Clone(at)
		for i := range all {
			clear(at)
			at[i] = all[i]
			if err := readable(); err != nil {
				return i, all[i], err
			}
		}
		copy(at, all)
	}
	return nil, nil, nil
}

// drop empties the place that path leads to.
func drop(body map[string]any, path []any) {
	var at any = body
	for i, step := range path {
		last := i == len(path)-1
		switch step := step.(type) {
		case string:
			m, _ := at.(map[string]any)
			if last {
				delete(m, step)
			}
			at = m[step]
		case int:
			l, _ := at.([]any)
			if last {
				l[step] = nil
				return
			}
			at = l[step]
		}
	}
}

// fieldOf writes a path as spec.containers[0].image.
func fieldOf(path []any) string {
	text := ""
	for _, step := range path {
		switch step := step.(type) {
		case string:
			text = child(text, step)
		case int:
			text = fmt.Sprintf("%s[%d]", text, step)
		}
	}
	return text
}
