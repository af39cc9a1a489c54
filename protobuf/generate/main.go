// Command generate writes down what the protobuf transcoder knows about Kubernetes' built-in kinds.
//
// It reflects over the Go types of every kind that client-go's scheme registers and notes, for each message that they
// are made of, the numbers its fields have in protobuf and how encoding/json prints them. No text of Kubernetes is taken
// over, only these facts.
//
// Run it in this directory after raising the versions in go.mod:
//
//	go run . -fields ../src/fields.json.gz -fixtures ../src/tests/fixtures.json
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"log"
	"os"
)

func main() {
	fields := flag.String("fields", "../src/fields.json.gz", "where the table of kinds, messages and fields is written")
	fixtures := flag.String("fixtures", "../src/tests/fixtures.json", "where pairs of protobuf and JSON are written")
	flag.Parse()

	scheme := newScheme()
	if err := os.WriteFile(*fields, compress(encode(describe(scheme), "")), 0o644); err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(*fixtures, encode(pairs(scheme), " "), 0o644); err != nil {
		log.Fatal(err)
	}
}

func encode(value any, indent string) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	if err := encoder.Encode(value); err != nil {
		log.Fatal(err)
	}
	return out.Bytes()
}

// compress leaves name and time out of the header, so that the same facts give the same file.
func compress(data []byte) []byte {
	var out bytes.Buffer
	writer, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := writer.Write(data); err != nil {
		log.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		log.Fatal(err)
	}
	return out.Bytes()
}
