package backend

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/go-sql-driver/mysql"
)

func TestClassify(t *testing.T) {
	number := func(n uint16) error { return fmt.Errorf("flush: %w", &mysql.MySQLError{Number: n, Message: "m"}) }
	tests := []struct {
		err  error
		want class
	}{
		{number(1205), transient},
		{number(1213), transient},
		{number(1040), transient},
		{number(2006), transient},
		{number(2013), transient},
		{number(1290), transient},
		{number(1836), transient},
		{number(1045), transient},
		{number(1048), row},
		{number(1062), row},
		{number(1264), row},
		{number(1265), row},
		{number(1292), row},
		{number(1366), row},
		{number(1406), row},
		{number(3819), row},
		{number(4025), row},
		{number(1451), reference},
		{number(1452), reference},
		{number(1054), schema},
		{number(1146), schema},
		{number(1142), schema},
		{number(64999), row},
		{driver.ErrBadConn, transient},
		{mysql.ErrInvalidConn, transient},
		{fmt.Errorf("begin: %w", mysql.ErrInvalidConn), transient},
		{mysql.ErrMalformPkt, transient},
		{mysql.ErrOldProtocol, transient},
		{mysql.ErrPktTooLarge, row},
		{sql.ErrConnDone, transient},
		{io.ErrUnexpectedEOF, transient},
		{context.DeadlineExceeded, transient},
		{context.Canceled, transient},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, transient},
		{&net.DNSError{Err: "no such host"}, transient},
		{os.ErrDeadlineExceeded, transient},
		{&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, transient},
		{errors.New("sql: converting argument $1 type: unsupported"), row},
	}
	for _, tt := range tests {
		if got := classify(tt.err); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.err, got, tt.want)
		}
	}
}

func TestErrorReply(t *testing.T) {
	err := &Error{CodeDBDown, "mysql failed: near 'x\r\ny'\nz: nothing was read"}
	if got, want := err.RESP(), "DBDOWN keyrow: mysql failed: near 'x y' z: nothing was read"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
