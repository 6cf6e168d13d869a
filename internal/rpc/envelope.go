package rpc

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/covey-platform/covey/internal/fault"
)

// A stream of Connect is envelopes: a byte of flags, the size of what follows
// in four bytes, and a message; the last one of a server is JSON and says how it
// ended. See https://connectrpc.com/docs/protocol#streaming-rpcs.
const (
	envelopeHead = 5
	lastEnvelope = 2 // the flag
)

// envelopes are buffers for one envelope each.
var envelopes = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// keptEnvelope bounds the buffers that are kept, in bytes: large messages are
// rare.
const keptEnvelope = 64 << 10

func putEnvelope(b *bytes.Buffer) {
	if b.Cap() <= keptEnvelope {
		b.Reset()
		envelopes.Put(b)
	}
}

// writeEnvelope writes a message at once.
func writeEnvelope(w io.Writer, m proto.Message) error {
	b, _ := envelopes.Get().(*bytes.Buffer)
	defer putEnvelope(b)
	var head [envelopeHead]byte
	b.Write(head[:])
	all, err := proto.MarshalOptions{}.MarshalAppend(b.Bytes(), m)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint32(all[1:], uint32(len(all)-envelopeHead))
	if _, err = w.Write(all); cap(all) <= keptEnvelope {
		*b = *bytes.NewBuffer(all) // to be used again as it has grown
	}
	return err
}

// readEnvelope reads the next message into m, of at most limit bytes. It is
// [io.EOF] when the other end ended the stream in order; another error of the
// wire is the one that the other end gave for it.
func readEnvelope(r io.Reader, limit int, m proto.Message) error {
	var head [envelopeHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint32(head[1:]))
	if n > limit {
		return fault.Exhausted.Errorf("a message of %d bytes; want at most %d", n, limit)
	}
	if head[0]&^lastEnvelope != 0 {
		return fault.Invalid.Errorf("an envelope with the flags %#x; want none", head[0])
	}
	b, _ := envelopes.Get().(*bytes.Buffer)
	defer putEnvelope(b)
	// What was announced is not believed: the buffer grows with what comes.
	if got, err := io.Copy(b, io.LimitReader(r, int64(n))); err != nil {
		return err
	} else if got < int64(n) {
		return io.ErrUnexpectedEOF
	}
	if head[0] == lastEnvelope {
		return readEnd(b.Bytes())
	}
	if err := proto.Unmarshal(b.Bytes(), m); err != nil {
		return fault.Invalid.Errorf("a message that cannot be read: %w", err)
	}
	return nil
}

// end is the last message of a stream.
type end struct {
	Error    *endError   `json:"error,omitempty"`
	Metadata http.Header `json:"metadata,omitempty"`
}

type endError struct {
	Code    connect.Code `json:"code"`
	Message string       `json:"message,omitempty"`
}

// endEnvelope is the last envelope of a stream that ended with err.
func endEnvelope(err error) []byte {
	var e end
	if w, ok := errors.AsType[*connect.Error](toWire(err)); ok {
		e = end{&endError{w.Code(), w.Message()}, w.Meta()}
	}
	out, _ := json.Marshal(e) // a struct of text
	out = append(make([]byte, envelopeHead, envelopeHead+len(out)), out...)
	out[0] = lastEnvelope
	binary.BigEndian.PutUint32(out[1:], uint32(len(out)-envelopeHead))
	return out
}

// readEnd returns the error with which the other end ended the stream;
// [io.EOF] if with none.
func readEnd(data []byte) error {
	var e end
	if err := json.Unmarshal(data, &e); err != nil {
		return fault.Invalid.Errorf("the end of a stream that cannot be read: %w", err)
	}
	if e.Error == nil {
		return io.EOF
	}
	w := connect.NewWireError(e.Error.Code, errors.New(e.Error.Message))
	for k, v := range e.Metadata {
		w.Meta()[http.CanonicalHeaderKey(k)] = v
	}
	return w
}
