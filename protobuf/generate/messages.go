package main

import (
	"encoding/json"
	"fmt"
	"iter"
	"log"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// forms are the types that print themselves, by the names that the transcoder gives to the ways they do.
var forms = map[reflect.Type]string{
	reflect.TypeFor[metav1.Time]():                                  "time",
	reflect.TypeFor[metav1.MicroTime]():                             "microTime",
	reflect.TypeFor[metav1.Duration]():                              "duration",
	reflect.TypeFor[resource.Quantity]():                            "quantity",
	reflect.TypeFor[intstr.IntOrString]():                           "intOrString",
	reflect.TypeFor[runtime.RawExtension]():                         "raw",
	reflect.TypeFor[metav1.FieldsV1]():                              "raw",
	reflect.TypeFor[apiextensionsv1.JSON]():                         "raw",
	reflect.TypeFor[apiextensionsv1.JSONSchemaPropsOrArray]():       "schemaOrArray",
	reflect.TypeFor[apiextensionsv1.JSONSchemaPropsOrBool]():        "schemaOrBool",
	reflect.TypeFor[apiextensionsv1.JSONSchemaPropsOrStringArray](): "schemaOrStrings",
}

// fixed are the forms whose fields the transcoder knows itself.
var fixed = []string{"time", "microTime", "duration", "quantity", "intOrString", "raw"}

// message is one protobuf message.
type message struct {
	Name   string  `json:"n"`
	Form   string  `json:"f,omitempty"`
	Fields []field `json:"p,omitempty"`
}

// field is number, name in JSON and type: flags and a shape.
//
// Flags: ? omitempty, ! omitzero, . inlined, * pointer. Shapes: s string, y bytes, b bool, i int32, l int64, d float64,
// m and an index for a message, [ and a shape for a list, { and a shape for a map with string keys.
type field [3]any

type builder struct {
	index    map[reflect.Type]int
	messages []message
}

// message gives the index of a type, which is described first where it is new.
func (b *builder) message(goType reflect.Type) int {
	if index, found := b.index[goType]; found {
		return index
	}
	index := len(b.messages)
	b.index[goType] = index
	b.messages = append(b.messages, message{})
	described := message{Name: goType.String(), Form: forms[goType]}
	switch {
	case goType.Kind() == reflect.Slice:
		// go-to-protobuf wraps named lists that are values of maps into messages of their own.
		described.Form = "items"
		described.Fields = []field{{1, "items", "[" + b.shape(goType.Elem())}}
	case !slices.Contains(fixed, described.Form):
		if described.Form == "" && printsItself(goType) {
			log.Fatalf("%v prints itself in a way that is not known", goType)
		}
		described.Fields = b.fields(goType)
		checkNames(goType, map[string]bool{})
	}
	b.messages[index] = described
	return index
}

func (b *builder) fields(goType reflect.Type) []field {
	var fields []field
	for one := range goType.Fields() {
		tag := one.Tag.Get("protobuf")
		if tag == "" || tag == "-" {
			if one.Type != reflect.TypeFor[metav1.TypeMeta]() && one.IsExported() {
				log.Printf("%v.%s is not sent", goType, one.Name)
			}
			continue
		}
		number, err := strconv.Atoi(strings.Split(tag, ",")[1])
		if err != nil {
			log.Fatalf("%v.%s: %v", goType, one.Name, err)
		}
		name, options := jsonName(one)
		if name == "-" {
			log.Printf("%v.%s is not printed", goType, one.Name)
			continue
		}
		fields = append(fields, field{number, name, b.flags(goType, one, options) + b.shape(dereference(one.Type))})
	}
	return fields
}

func (b *builder) flags(goType reflect.Type, one reflect.StructField, options []string) string {
	flags := ""
	if slices.Contains(options, "omitempty") {
		flags += "?"
	}
	if slices.Contains(options, "omitzero") {
		if one.Type != reflect.TypeFor[metav1.Time]() {
			log.Fatalf("%v.%s: what is zero for %v is not known", goType, one.Name, one.Type)
		}
		flags += "!"
	}
	if isInline(one) {
		flags += "."
	}
	if one.Type.Kind() == reflect.Pointer {
		flags += "*"
	}
	return flags
}

// shape goes by the type of Go: the wire types that stand in the tags are not what is sent (go-to-protobuf ignores them).
func (b *builder) shape(goType reflect.Type) string {
	switch goType.Kind() {
	case reflect.String:
		return "s"
	case reflect.Bool:
		return "b"
	case reflect.Int32:
		return "i"
	case reflect.Int64:
		return "l"
	case reflect.Float64:
		return "d"
	case reflect.Struct:
		return fmt.Sprint("m", b.message(goType))
	case reflect.Slice:
		if isMessage(goType) {
			return fmt.Sprint("m", b.message(goType))
		}
		if goType.Elem().Kind() == reflect.Uint8 {
			return "y"
		}
		return "[" + b.shape(dereference(goType.Elem()))
	case reflect.Map:
		if !isMessage(goType) && goType.Key().Kind() == reflect.String {
			return "{" + b.shape(dereference(goType.Elem()))
		}
	}
	log.Fatalf("%v: no shape is known", goType)
	return ""
}

func dereference(goType reflect.Type) reflect.Type {
	if goType.Kind() == reflect.Pointer {
		return goType.Elem()
	}
	return goType
}

func jsonName(one reflect.StructField) (string, []string) {
	parts := strings.Split(one.Tag.Get("json"), ",")
	name := parts[0]
	if name == "" {
		name = one.Name
	}
	return name, parts[1:]
}

// isInline is the rule of encoding/json, which does not know the word inline.
func isInline(one reflect.StructField) bool {
	return one.Anonymous && strings.Split(one.Tag.Get("json"), ",")[0] == "" && dereference(one.Type).Kind() == reflect.Struct
}

// checkNames fails where inlined fields would hide each other, which the transcoder does not do.
func checkNames(goType reflect.Type, names map[string]bool) {
	for one := range goType.Fields() {
		if isInline(one) && forms[goType] == "" {
			checkNames(dereference(one.Type), names)
			continue
		}
		name, _ := jsonName(one)
		if names[name] && name != "-" {
			log.Fatalf("%v.%s: %s is there twice", goType, one.Name, name)
		}
		names[name] = true
	}
}

func isMessage(goType reflect.Type) bool {
	return reflect.PointerTo(goType).Implements(reflect.TypeFor[interface{ Unmarshal([]byte) error }]())
}

func printsItself(goType reflect.Type) bool {
	return reflect.PointerTo(goType).Implements(reflect.TypeFor[json.Marshaler]())
}

func sorted(types map[schema.GroupVersionKind]reflect.Type) iter.Seq2[schema.GroupVersionKind, reflect.Type] {
	kinds := slices.SortedFunc(maps.Keys(types), func(a, b schema.GroupVersionKind) int {
		return strings.Compare(a.String(), b.String())
	})
	return func(yield func(schema.GroupVersionKind, reflect.Type) bool) {
		for _, kind := range kinds {
			if !yield(kind, types[kind]) {
				return
			}
		}
	}
}
