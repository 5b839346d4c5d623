package backend

import (
	"context"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// Codes of keyrow's own error replies.
const (
	CodeErr         = "ERR"
	CodeDBDown      = "DBDOWN"
	CodeUpstream    = "UPSTREAM"
	CodeJournalFull = "JOURNALFULL"
)

// Error is an error reply of keyrow's own. Text is lower case, without a full stop, and says what became of the
// command.
type Error struct{ Code, Text string }

func (e *Error) Error() string { return e.Code + " keyrow: " + e.Text }

// RESP is the error as it stands in a reply, between '-' and the line end. It has no line breaks of its own.
func (e *Error) RESP() string { return oneLine(e.Error()) }

// redisError is an error Redis itself replied with; the client gets it as it is.
type redisError struct{ err error }

func (e redisError) Error() string { return e.err.Error() }
func (e redisError) Unwrap() error { return e.err }
func (e redisError) RESP() string  { return oneLine(e.err.Error()) }

// isReply reports whether err is one that a client can be given.
func isReply(err error) bool {
	var reply interface{ RESP() string }
	return errors.As(err, &reply)
}

var lineBreaks = strings.NewReplacer("\r\n", " ", "\r", " ", "\n", " ")

func oneLine(s string) string { return lineBreaks.Replace(s) }

// class says what is to be done about a failure of MySQL.
type class int

const (
	// transient: the same statement may work later. Repeated without an attempt limit; nothing is dropped.
	transient class = iota
	// row: the row's own fault, and it will be again. The batch is bisected and the row parked.
	row
	// reference: a foreign key, perhaps of a row still on its way. Repeated for a while, then parked.
	reference
	// schema: the table is not what it was, or is not ours to write. The schema is read again; if that does not
	// help, the mapping pauses and its marks wait.
	schema
)

func (c class) String() string {
	return [...]string{"transient", "row", "reference", "schema"}[c]
}

// classes is the one place that says which error number of MySQL or MariaDB is of which class. A number that is not
// here is of class row: see classify.
var classes = map[uint16]class{
	1020: transient, // the row was changed since the transaction began
	1021: transient, // disk full
	1028: transient, // filesort aborted
	1030: transient, // got error from storage engine
	1037: transient, // out of memory
	1038: transient, // out of sort memory
	1040: transient, // too many connections
	1041: transient, // out of memory
	1042: transient, // cannot resolve the client's host name
	1043: transient, // bad handshake
	1045: transient, // login denied: of the connection, not of a row
	1047: transient, // unknown command; a Galera node that has not joined yet
	1053: transient, // server shutdown in progress
	1077: transient, // normal shutdown
	1079: transient, // shutdown complete
	1080: transient, // forcing close of thread
	1114: transient, // table is full
	1129: transient, // host blocked
	1130: transient, // host not allowed
	1135: transient, // cannot create a thread
	1152: transient, // aborted connection
	1156: transient, // packets out of order
	1158: transient, // error reading packets
	1159: transient, // timeout reading packets
	1160: transient, // error writing packets
	1161: transient, // timeout writing packets
	1180: transient, // error during commit
	1181: transient, // error during rollback
	1184: transient, // aborted connection
	1203: transient, // max_user_connections
	1205: transient, // lock wait timeout
	1206: transient, // lock table full
	1213: transient, // deadlock
	1223: transient, // global read lock
	1226: transient, // resource limit of the user
	1290: transient, // running with --read-only
	1296: transient, // error of a storage engine
	1297: transient, // temporary error of a storage engine
	1317: transient, // query interrupted
	1412: transient, // table definition changed: a new transaction sees it
	1614: transient, // transaction branch rolled back: deadlock
	1615: transient, // prepared statement needs to be prepared again
	1637: transient, // too many active concurrent transactions
	1698: transient, // login denied
	1792: transient, // read-only transaction
	1820: transient, // password has to be changed
	1836: transient, // running in read-only mode
	1862: transient, // password expired
	1927: transient, // connection was killed (MariaDB)
	1969: transient, // max_statement_time exceeded (MariaDB)
	2006: transient, // server has gone away
	2013: transient, // lost connection during query
	3024: transient, // max_execution_time exceeded
	3058: transient, // deadlock of user locks
	3100: transient, // refused by a replication hook before the commit
	3101: transient, // rolled back by group replication
	3118: transient, // account locked
	3159: transient, // secure transport required
	3572: transient, // lock not available with NOWAIT
	4031: transient, // disconnected for inactivity

	1048: row, // column cannot be null
	1062: row, // duplicate entry
	1153: row, // packet larger than max_allowed_packet
	1264: row, // out of range
	1265: row, // data truncated
	1292: row, // incorrect value
	1366: row, // incorrect value for column
	1406: row, // data too long
	1644: row, // SIGNAL, of a trigger
	3819: row, // check constraint (MySQL)
	4025: row, // check constraint (MariaDB)

	1216: reference, // no parent row, without the name of the constraint
	1217: reference, // has child rows, without the name of the constraint
	1451: reference, // has child rows
	1452: reference, // no parent row

	1044: schema, // access to the database denied
	1049: schema, // unknown database
	1051: schema, // unknown table
	1054: schema, // unknown column
	1109: schema, // unknown table
	1136: schema, // column count does not match
	1142: schema, // command denied on the table
	1143: schema, // command denied on the column
	1146: schema, // no such table
	1194: schema, // table crashed
	1195: schema, // table crashed, and its repair failed
	1286: schema, // unknown storage engine
	1288: schema, // not updatable
	1305: schema, // a trigger calls a function that does not exist
	1356: schema, // view refers to what does not exist
	1364: schema, // a column of the table that is not written has no default
	1471: schema, // not insertable
	1814: schema, // tablespace discarded
	1906: schema, // value for a generated column (MariaDB)
	1932: schema, // table does not exist in the engine (MariaDB)
	3105: schema, // value for a generated column (MySQL)
}

// connecting are the driver's errors that say a connection could not be made or has become useless.
var connecting = []error{
	driver.ErrBadConn, mysql.ErrInvalidConn, mysql.ErrMalformPkt, mysql.ErrPktSync, mysql.ErrPktSyncMul,
	mysql.ErrBusyBuffer, mysql.ErrNoTLS, mysql.ErrCleartextPassword, mysql.ErrNativePassword, mysql.ErrOldPassword,
	mysql.ErrUnknownPlugin, mysql.ErrOldProtocol, sql.ErrConnDone, sql.ErrTxDone, io.EOF, io.ErrUnexpectedEOF,
	net.ErrClosed, context.Canceled, context.DeadlineExceeded,
}

// classify tells the class of an error that database/sql or the driver returned. It is not for nil.
//
// What is unknown is of class row. Were it transient, one row with an error nobody thought of would hold up its
// partition for ever; were it dropped, an acknowledged write would be lost. As a row's fault the batch is bisected
// until the row stands alone, and it is parked with the words of MySQL: nothing is lost, the others go on, and a
// failure that has nothing to do with the row shows as parked rows that a retry brings back.
func classify(err error) class {
	var my *mysql.MySQLError
	if errors.As(err, &my) {
		if c, ok := classes[my.Number]; ok {
			return c
		}
		return row
	}
	for _, e := range connecting {
		if errors.Is(err, e) {
			return transient
		}
	}
	var timeout net.Error
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	if errors.As(err, &timeout) || errors.As(err, &cert) || errors.As(err, &record) {
		return transient
	}
	return row
}
