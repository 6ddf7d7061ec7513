package transport

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
)

// strict decodes one JSON value into v, a pointer, and refuses what two readers could understand differently: members that v
// does not have, members in another case, members that stand twice in any object, and null for what cannot be absent.
func strict(b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return err
	}
	w := walker{b: b}
	return w.value(reflect.TypeOf(v).Elem())
}

// walker compares JSON, of which it is known that it is valid, with the type that it was decoded into.
type walker struct {
	b []byte
	i int
}

// fields returns the types of a struct's members by name, in JSON.
func fields(t reflect.Type) map[string]field {
	if m, ok := fieldsOf.Load(t); ok {
		return m.(map[string]field)
	}
	m := make(map[string]field, t.NumField())
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		m[name] = field{i, t.Field(i).Type}
	}
	fieldsOf.Store(t, m)
	return m
}

type field struct {
	index int
	t     reflect.Type
}

var (
	fieldsOf sync.Map // reflect.Type → map[string]field
	raw      = reflect.TypeFor[json.RawMessage]()
	text     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// value checks the value at i against t; nil is any type.
func (w *walker) value(t reflect.Type) error {
	if t == raw {
		t = nil
	}
	w.space()
	switch c := w.b[w.i]; {
	case c == '{':
		return w.object(t)
	case c == '[':
		var elem reflect.Type
		if t != nil {
			elem = deref(t).Elem()
		}
		return w.array(elem)
	case c == '"':
		w.str()
	case c == 'n' && t != nil && t.Kind() != reflect.Pointer && t.Kind() != reflect.Slice && t.Kind() != reflect.Map:
		return errors.New("null where a value is due")
	default:
		for w.i < len(w.b) && !strings.ContainsRune(",]} \t\r\n", rune(w.b[w.i])) {
			w.i++
		}
	}
	return nil
}

func deref(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

func (w *walker) object(t reflect.Type) error {
	var names map[string]field
	var elem reflect.Type
	if t != nil {
		if t = deref(t); t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(text) {
			names = fields(t)
		} else if t.Kind() == reflect.Map {
			elem = t.Elem()
		}
	}
	var known uint64         // members of a struct
	var seen map[string]bool // of a map
	w.i++
	for {
		w.space()
		switch w.b[w.i] {
		case '}':
			w.i++
			return nil
		case ',':
			w.i++
			w.space()
		}
		key := w.str()
		if names != nil {
			f, ok := names[string(key)]
			if !ok {
				return fmt.Errorf("unknown member %q", key)
			}
			if known&(1<<f.index) != 0 {
				return fmt.Errorf("member %q twice", key)
			}
			known |= 1 << f.index
			elem = f.t
		} else {
			name := string(key)
			if bytes.IndexByte(key, '\\') >= 0 {
				if err := json.Unmarshal(w.b[w.i-len(key)-2:w.i], &name); err != nil {
					return err
				}
			}
			if seen[name] {
				return fmt.Errorf("member %q twice", name)
			}
			if seen == nil {
				seen = map[string]bool{}
			}
			seen[name] = true
		}
		w.space()
		w.i++ // the colon
		if err := w.value(elem); err != nil {
			return err
		}
	}
}

func (w *walker) array(elem reflect.Type) error {
	w.i++
	for {
		w.space()
		switch w.b[w.i] {
		case ']':
			w.i++
			return nil
		case ',':
			w.i++
		}
		if err := w.value(elem); err != nil {
			return err
		}
	}
}

// str returns what stands between the quotes at i.
func (w *walker) str() []byte {
	w.i++
	start := w.i
	for w.b[w.i] != '"' {
		if w.b[w.i] == '\\' {
			w.i++
		}
		w.i++
	}
	w.i++
	return w.b[start : w.i-1]
}

func (w *walker) space() {
	for w.i < len(w.b) && (w.b[w.i] == ' ' || w.b[w.i] == '\n' || w.b[w.i] == '\t' || w.b[w.i] == '\r') {
		w.i++
	}
}
