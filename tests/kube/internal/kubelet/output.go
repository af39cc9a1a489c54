package kubelet

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// output is where the streams of one run of a container go: to its log, in the format of the CRI, and to everyone attached.
type output struct {
	// done is closed when the log is complete.
	done chan struct{}

	mutex    sync.Mutex
	log      *os.File
	partial  map[string][]byte
	attached map[*attachment]struct{}
}

// attachment is one client of attach. Its writers may be nil.
type attachment struct {
	stdout, stderr io.Writer
	// failed is closed when the client is gone.
	failed chan struct{}
	once   sync.Once
}

func newOutput(path string) (*output, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	log, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &output{
		done: make(chan struct{}), log: log, partial: map[string][]byte{}, attached: map[*attachment]struct{}{},
	}, nil
}

// stream is the writer for "stdout" or "stderr".
func (o *output) stream(name string) io.Writer { return outputStream{o, name} }

type outputStream struct {
	output *output
	name   string
}

func (s outputStream) Write(data []byte) (int, error) {
	o := s.output
	o.mutex.Lock()
	defer o.mutex.Unlock()
	for a := range o.attached {
		writer := a.stdout
		if s.name == "stderr" {
			writer = a.stderr
		}
		if writer == nil {
			continue
		}
		if _, err := writer.Write(data); err != nil {
			a.fail()
			delete(o.attached, a)
		}
	}
	pending := append(o.partial[s.name], data...)
	for {
		line, rest, found := bytes.Cut(pending, []byte{'\n'})
		if !found {
			break
		}
		if err := o.writeLine(s.name, line); err != nil {
			return 0, err
		}
		pending = rest
	}
	o.partial[s.name] = bytes.Clone(pending)
	return len(data), nil
}

func (o *output) writeLine(stream string, line []byte) error {
	_, err := fmt.Fprintf(o.log, "%s %s F %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z07:00"), stream, line)
	return err
}

// close completes the log and ends every attachment.
func (o *output) close() {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	for stream, rest := range o.partial {
		if len(rest) > 0 {
			_ = o.writeLine(stream, rest)
		}
	}
	_ = o.log.Close()
	close(o.done)
}

func (o *output) attach(a *attachment) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.attached[a] = struct{}{}
}

func (o *output) detach(a *attachment) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	delete(o.attached, a)
}

func (a *attachment) fail() { a.once.Do(func() { close(a.failed) }) }
