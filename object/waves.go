package object

import (
	"fmt"
	"slices"
	"strings"
)

// CycleError says that objects wait for each other.
type CycleError struct{ Path []Ref }

func (e *CycleError) Error() string {
	names := make([]string, len(e.Path))
	for i, r := range e.Path {
		names[i] = r.String()
	}
	return "depends-on goes round in a circle: " + strings.Join(names, " -> ")
}

// Waves cuts the objects of one phase into groups that are applied one after the other:
// an object comes after every object of the phase that it depends on and after
// every kind that stands before its own in kind order. A depends-on edge is waited for
// until healthy (its wave's Await); kind order alone is not.
// Objects that are depended on but not in objects are ignored here.
func Waves(objects []Object) ([]Wave, error) {
	level, err := depths(objects)
	if err != nil {
		return nil, err
	}
	var waves []Wave
	byKey := map[[2]int]int{}
	keys := [][2]int{}
	for _, o := range objects {
		key := [2]int{level[o.Ref], kindRank(o.Ref.Kind)}
		if _, ok := byKey[key]; !ok {
			byKey[key] = 0
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b [2]int) int { return slices.Compare(a[:], b[:]) })
	for i, key := range keys {
		byKey[key] = i
		waves = append(waves, Wave{})
	}
	awaited := map[Ref]bool{}
	for _, o := range objects {
		needs, err := DependsOn(o.Body)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.Ref, err)
		}
		for _, n := range needs {
			awaited[n] = true
		}
	}
	for _, o := range objects {
		w := &waves[byKey[[2]int{level[o.Ref], kindRank(o.Ref.Kind)}]]
		w.Objects = append(w.Objects, o)
		if awaited[o.Ref] {
			w.Await = append(w.Await, o.Ref)
		}
	}
	return waves, nil
}

// Wave is a group of objects that are applied side by side.
type Wave struct {
	Objects []Object
	Await   []Ref // those that must be healthy before the next wave begins
}

// depths gives each object the length of its longest chain of dependencies within objects.
func depths(objects []Object) (map[Ref]int, error) {
	const open = -1
	byRef := make(map[Ref]Object, len(objects))
	for _, o := range objects {
		byRef[o.Ref] = o
	}
	level := make(map[Ref]int, len(objects))
	var path []Ref
	var visit func(r Ref) (int, error)
	visit = func(r Ref) (int, error) {
		if d, ok := level[r]; ok {
			if d == open {
				return 0, &CycleError{Path: append(slices.Clone(path[slices.Index(path, r):]), r)}
			}
			return d, nil
		}
		level[r] = open
		path = append(path, r)
		needs, err := DependsOn(byRef[r].Body)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", r, err)
		}
		depth := 0
		for _, n := range needs {
			if _, ok := byRef[n]; !ok {
				continue
			}
			d, err := visit(n)
			if err != nil {
				return 0, err
			}
			depth = max(depth, d+1)
		}
		path = path[:len(path)-1]
		level[r] = depth
		return depth, nil
	}
	for _, o := range objects {
		if _, err := visit(o.Ref); err != nil {
			return nil, err
		}
	}
	return level, nil
}
