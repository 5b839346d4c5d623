package proxy

import (
	"errors"
	"strings"

	"github.com/tidwall/redcon"
)

// replyError is an error reply of keyrow's own: the code that clients branch on, and words that say what happened
// to the command and what to do.
type replyError struct{ code, text string }

func (e replyError) Error() string { return e.code + " keyrow: " + e.text }

// RESP is the error as it goes to a client, without the minus sign.
func (e replyError) RESP() string { return e.Error() }

// refused says why keyrow does not run a command; nothing was applied.
func refused(text string) error { return replyError{"ERR", text} }

// upstreamError says that Redis could not be asked.
func upstreamError(text string) error { return replyError{"UPSTREAM", text} }

func notApplied(why error) error {
	return unsentError{replyError{"UPSTREAM", "the command was not sent: " + why.Error()}, why}
}

// unsentError is an upstreamError with its cause.
type unsentError struct {
	replyError
	why error
}

func (e unsentError) Unwrap() error { return e.why }

// appendError appends err as a RESP error. Errors that carry no reply of their own get the code ERR.
func appendError(b []byte, err error) []byte {
	var r interface{ RESP() string }
	if errors.As(err, &r) {
		return redcon.AppendError(b, r.RESP())
	}
	return redcon.AppendError(b, "ERR keyrow: "+err.Error())
}

// isUpstream reports whether err is an upstreamError.
func isUpstream(err error) bool {
	var r replyError
	var unsent unsentError
	return errors.As(err, &unsent) || errors.As(err, &r) && r.code == "UPSTREAM"
}

// isWrongType reports whether err is Redis's refusal to read a key of another type.
func isWrongType(err error) bool {
	var r interface{ RESP() string }
	return errors.As(err, &r) && strings.HasPrefix(r.RESP(), "WRONGTYPE")
}
