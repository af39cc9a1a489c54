package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"
)

// What a record tells of.
const (
	// typeRequest is a request with its answer, when the answer begins.
	typeRequest = "REQUEST"
	// typeSynced comes once, when the store has what the resource was at the start.
	typeSynced = "SYNCED"
	// typeState is everything in the store, because somebody asked.
	typeState = "STATE"
	// typeReplaced is a list that takes the place of what the store had. The reflector tells it.
	typeReplaced = "REPLACED"
	// typeAdded, typeModified and typeDeleted are events of one object: as they came, from the reflector; what was made of
	// them, from the informer.
	typeAdded    = "ADDED"
	typeModified = "MODIFIED"
	typeDeleted  = "DELETED"
	// typeMissed is a deletion that was not seen: the object is not in a later list.
	typeMissed = "MISSED"
)

// record is one line of the journal.
type record struct {
	// Milliseconds since 1970.
	Time int64  `json:"time"`
	Type string `json:"type"`

	// Of a request: its query, and the answer or why there is none.
	Query    string `json:"query,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	Status   int    `json:"status,omitempty"`
	Error    string `json:"error,omitempty"`

	// Of an event: namespace and name, the revision, and that of the object before.
	Key             string `json:"key,omitempty"`
	ResourceVersion string `json:"resourceVersion,omitempty"`
	Previous        string `json:"previous,omitempty"`

	// Of a state, or of a list that replaces it: the objects.
	Objects []any `json:"objects,omitempty"`
}

// journal writes records as lines.
type journal struct {
	lock    sync.Mutex
	encoder *json.Encoder
}

func newJournal(out io.Writer) *journal {
	return &journal{encoder: json.NewEncoder(out)}
}

func (j *journal) write(r record) {
	j.lock.Lock()
	defer j.lock.Unlock()
	r.Time = time.Now().UnixMilli()
	if err := j.encoder.Encode(r); err != nil {
		// Nobody reads any more.
		fmt.Fprintln(os.Stderr, "informer:", err)
		os.Exit(1)
	}
}

// event writes what happened to an object.
func (j *journal) event(kind string, object, previous any) {
	j.write(record{Type: kind, Key: keyOf(object), ResourceVersion: versionOf(object), Previous: versionOf(previous)})
}

func keyOf(object any) string {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object)
	if err != nil {
		return err.Error()
	}
	return key
}

// requests tells the journal of every request.
type requests struct {
	next    http.RoundTripper
	journal *journal
}

func (r requests) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := r.next.RoundTrip(request)
	told := record{Type: typeRequest, Query: request.URL.RawQuery}
	if err != nil {
		told.Error = err.Error()
	} else {
		told.Status, told.Protocol = response.StatusCode, response.Proto
	}
	r.journal.write(told)
	return response, err
}
