package fields

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Change is one field that differs. What must not be shown is masked already, so
// that nobody after Diff ever holds it.
type Change struct {
	Path string `json:"path"`          // as kubectl writes it: spec.template.spec.containers[name=app].image
	Old  string `json:"old,omitempty"` // short text; empty if it was not there
	New  string `json:"new,omitempty"` // short text; empty if it goes
}

func (f Change) String() string {
	switch {
	case f.Old == "":
		return f.Path + ": + " + f.New
	case f.New == "":
		return f.Path + ": - " + f.Old
	}
	return f.Path + ": " + f.Old + " -> " + f.New
}

// Diff lists the fields in which two states of one object differ, in order of path. Either may
// be nil. Status, our own marks and what the API server counts for itself are left out.
func Diff(old, new *unstructured.Unstructured) []Change {
	d := differ{}
	if old != nil {
		d.kind = old.GroupVersionKind().GroupKind()
	} else if new != nil {
		d.kind = new.GroupVersionKind().GroupKind()
	}
	d.walk(nil, content(old), content(new))
	slices.SortStableFunc(d.changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return d.changes
}

// step is one part of the path to a field: a name, or an item of a list by its key or index.
type step struct {
	name string
	key  string // value of the key: app in [name=app]
	item string // [name=app] or [0]
}

func pathText(path []step) string {
	var b strings.Builder
	for _, s := range path {
		switch {
		case s.item != "":
			b.WriteString(s.item)
		case strings.ContainsAny(s.name, "./[]"):
			b.WriteString("[" + s.name + "]")
		default:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(s.name)
		}
	}
	return b.String()
}

type differ struct {
	kind    schema.GroupKind
	changes []Change
}

// walk compares two values at one path.
func (d *differ) walk(path []step, old, new any) {
	if reflect.DeepEqual(old, new) || dropped(path) {
		return
	}
	oldMap, a := old.(map[string]any)
	newMap, b := new.(map[string]any)
	if (a || old == nil) && (b || new == nil) && len(oldMap)+len(newMap) > 0 {
		d.maps(path, oldMap, newMap)
		return
	}
	oldList, a := old.([]any)
	newList, b := new.([]any)
	if (a || old == nil) && (b || new == nil) && len(oldList)+len(newList) > 0 && allMaps(oldList) && allMaps(newList) {
		d.lists(path, oldList, newList)
		return
	}
	d.report(path, old, new)
}

func (d *differ) maps(path []step, old, new map[string]any) {
	names := maps.Clone(old)
	if names == nil {
		names = map[string]any{}
	}
	maps.Copy(names, new)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		d.walk(append(slices.Clip(path), step{name: name}), old[name], new[name])
	}
}

// listKeys are the fields by which the items of lists are told apart, the likeliest first.
var listKeys = []string{"name", "key", "mountPath", "devicePath", "containerPort", "port", "ip", "host", "type", "path", "topologyKey", "uid", "id"}

// lists compares lists of maps item by item: by a key that every item has, else by index.
func (d *differ) lists(path []step, old, new []any) {
	key := keyOf(old, new)
	if key == "" {
		for i := range max(len(old), len(new)) {
			d.walk(append(slices.Clip(path), step{item: fmt.Sprintf("[%d]", i)}), at(old, i), at(new, i))
		}
		return
	}
	was, order := byKey(old, key)
	will, newOrder := byKey(new, key)
	for _, k := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(order, newOrder)))) {
		d.walk(append(slices.Clip(path), step{key: k, item: "[" + key + "=" + k + "]"}), was[k], will[k])
	}
	if len(order) == len(newOrder) && !slices.Equal(order, newOrder) && slices.Equal(slices.Sorted(slices.Values(order)), slices.Sorted(slices.Values(newOrder))) {
		d.changes = append(d.changes, Change{Path: pathText(path) + " (order)", Old: clip(strings.Join(order, ", ")), New: clip(strings.Join(newOrder, ", "))})
	}
}

// report notes one change of a value that is not looked into.
func (d *differ) report(path []step, old, new any) {
	f := Change{Path: pathText(path)}
	if hidden(d.kind, path) {
		switch {
		case old == nil:
			f.New = masked
		case new == nil:
			f.Old = masked
		default:
			f.Old, f.New = masked, masked+" (changed)"
		}
	} else {
		if f.Old, f.New = texts(old, new); f.Old == f.New {
			f.New += " (changed)" // in what is redacted
		}
	}
	d.changes = append(d.changes, f)
}

func allMaps(list []any) bool {
	for _, v := range list {
		if _, ok := v.(map[string]any); !ok {
			return false
		}
	}
	return true
}

func at(list []any, i int) any {
	if i < len(list) {
		return list[i]
	}
	return nil
}

// keyOf finds the field whose values tell the items of both lists apart.
func keyOf(lists ...[]any) string {
	for _, key := range listKeys {
		if !slices.ContainsFunc(lists, func(list []any) bool {
			_, order := byKey(list, key)
			slices.Sort(order)
			return len(slices.Compact(order)) != len(list)
		}) {
			return key
		}
	}
	return ""
}

func byKey(list []any, key string) (map[string]any, []string) {
	items := make(map[string]any, len(list))
	var order []string
	for _, v := range list {
		k := scalar(v.(map[string]any)[key])
		if k == "" {
			continue
		}
		items[k] = v
		order = append(order, k)
	}
	return items, order
}

func scalar(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}

// texts writes two values; of long ones that begin alike it shows where they part.
func texts(old, new any) (string, string) {
	a, b := text(old), text(new)
	if len(a) <= shortText && len(b) <= shortText || old == nil || new == nil {
		return clip(a), clip(b)
	}
	from := 0
	for from < min(len(a), len(b)) && a[from] == b[from] {
		from++
	}
	from = max(0, from-shortText/3)
	return clip(tail(a, from)), clip(tail(b, from))
}

func tail(s string, from int) string {
	if from == 0 {
		return s
	}
	return "…" + strings.ToValidUTF8(s[from:], "")
}

func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		if v == "" {
			return `""`
		}
		return plain(v)
	case map[string]any, []any:
		b, err := json.Marshal(v)
		if err != nil {
			return "?"
		}
		return plain(string(b))
	}
	return scalar(v)
}

// shortText is how many bytes of a value a change shows at most.
const shortText = 100

func clip(s string) string {
	if len(s) <= shortText {
		return s
	}
	return strings.ToValidUTF8(s[:shortText], "") + "…"
}
