package proxy

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// v2 makes a header of version 2.
func v2(command, family byte, rest string) string {
	return headerV2 + string([]byte{command, family}) + string(binary.BigEndian.AppendUint16(nil, uint16(len(rest)))) + rest
}

const (
	v4Addrs = "\xc0\x00\x02\x01\xc6\x33\x64\x02\x30\x39\x18\xec" // 192.0.2.1 12345, 198.51.100.2 6380
	v6Addrs = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x30\x39\x18\xec"
)

var headers = []struct {
	name, header string
	want         *peers
	err          string
}{
	{"v1 4", "PROXY TCP4 192.0.2.1 198.51.100.2 12345 6380\r\n", &peers{"192.0.2.1:12345", "198.51.100.2:6380"}, ""},
	{"v1 6", "PROXY TCP6 2001:db8::1 2001:db8::2 12345 6380\r\n", &peers{"[2001:db8::1]:12345", "[2001:db8::2]:6380"}, ""},
	{"v1 shortest", "PROXY UNKNOWN\r\n", nil, ""},
	{"v1 unknown with addresses", "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", nil, ""},
	{"v1 longest", "PROXY UNKNOWN " + strings.Repeat("x", maxHeaderV1-16) + "\r\n", nil, ""},
	{"v1 too long", "PROXY UNKNOWN " + strings.Repeat("x", maxHeaderV1-15) + "\r\n", nil, "no end of line within 107 bytes"},
	{"v1 without CR", "PROXY UNKNOWN x\n", nil, "does not end in CRLF"},
	{"v1 with LF inside", "PROXY X\nabcdefgh\r\n", nil, "is not understood"},
	{"v1 other family", "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n", nil, "is not understood"},
	{"v1 wrong family", "PROXY TCP4 2001:db8::1 198.51.100.2 1 2\r\n", nil, "is not understood"},
	{"v1 zone", "PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n", nil, "is not understood"},
	{"v1 name", "PROXY TCP4 localhost 198.51.100.2 1 2\r\n", nil, "is not understood"},
	{"v1 large port", "PROXY TCP4 192.0.2.1 198.51.100.2 65536 2\r\n", nil, "is not understood"},
	{"v1 odd port", "PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n", nil, "is not understood"},
	{"v1 word missing", "PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n", nil, "is not understood"},
	{"v1 word too many", "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n", nil, "is not understood"},
	{"v1 two blanks", "PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n", nil, "is not understood"},

	{"v2 4", v2(0x21, 0x11, v4Addrs), &peers{"192.0.2.1:12345", "198.51.100.2:6380"}, ""},
	{"v2 6", v2(0x21, 0x21, v6Addrs), &peers{"[2001:db8::1]:12345", "[2001:db8::2]:6380"}, ""},
	{"v2 with more behind", v2(0x21, 0x11, v4Addrs+strings.Repeat("t", 1000)), &peers{"192.0.2.1:12345", "198.51.100.2:6380"}, ""},
	{"v2 longest", v2(0x21, 0x11, v4Addrs+strings.Repeat("t", maxHeaderV2-12)), &peers{"192.0.2.1:12345", "198.51.100.2:6380"}, ""},
	{"v2 too long", v2(0x21, 0x11, strings.Repeat("t", maxHeaderV2+1)), nil, "4097 bytes long, at most 4096 are taken"},
	{"v2 of the balancer itself", v2(0x20, 0x00, ""), nil, ""},
	{"v2 of the balancer itself with addresses", v2(0x20, 0x11, v4Addrs), nil, ""},
	{"v2 unspecified", v2(0x21, 0x00, "anything"), nil, ""},
	{"v2 unix", v2(0x21, 0x31, strings.Repeat("\x00", 216)), nil, ""},
	{"v2 too short", v2(0x21, 0x11, v4Addrs[:11]), nil, "11 bytes are too few for two addresses of family 0x11"},
	{"v2 too short for 6", v2(0x21, 0x21, v4Addrs), nil, "12 bytes are too few for two addresses of family 0x21"},
	{"v2 other version", v2(0x31, 0x11, v4Addrs), nil, "0x31 are not known"},
	{"v2 other command", v2(0x22, 0x11, v4Addrs), nil, "0x22 are not known"},

	{"command", "*1\r\n$4\r\nPING\r\n*1\r\n", nil, "there is none"},
	{"inline command", "PING PING PING PING\r\n", nil, "there is none"},
	{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("x", 20), nil, "there is none"},
	{"lower case", "proxy UNKNOWN\r\n", nil, "there is none"},
	{"nothing", "", nil, "EOF"},
}

// However the bytes arrive, what stands behind the header is left where it is.
func TestProxyHeader(t *testing.T) {
	const behind = "*1\r\n$4\r\nPING\r\n"
	for _, tt := range headers {
		for _, how := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader} {
			text := tt.header
			if text != "" {
				text += behind
			}
			r := strings.NewReader(text)
			got, err := readProxyHeader(how(r))
			switch {
			case tt.err != "":
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%s: %v, want %s", tt.name, err, tt.err)
				}
			case err != nil:
				t.Errorf("%s: %v", tt.name, err)
			case (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want:
				t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
			default:
				if rest, _ := io.ReadAll(r); string(rest) != behind {
					t.Errorf("%s: %q is left behind it, want %q", tt.name, rest, behind)
				}
			}
		}
	}
}

// A header that breaks off is an error at every place.
func TestProxyHeaderCutShort(t *testing.T) {
	for _, tt := range headers {
		for end := range len(tt.header) {
			if tt.err != "" {
				continue
			}
			if got, err := readProxyHeader(strings.NewReader(tt.header[:end])); err == nil {
				t.Errorf("%s: the first %d of %d bytes are %+v", tt.name, end, len(tt.header), got)
			}
		}
	}
}

func FuzzProxyHeader(f *testing.F) {
	for _, tt := range headers {
		f.Add([]byte(tt.header + "*1\r\n"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, pieces := bytes.NewReader(b), bytes.NewReader(b)
		got, err := readProxyHeader(whole)
		again, errAgain := readProxyHeader(iotest.OneByteReader(pieces))
		if (err == nil) != (errAgain == nil) || (got == nil) != (again == nil) || got != nil && *got != *again {
			t.Fatalf("%+v, %v in one piece, %+v, %v in many", got, err, again, errAgain)
		}
		if whole.Len() != pieces.Len() {
			t.Fatalf("%d bytes are left in one piece, %d in many", whole.Len(), pieces.Len())
		}
		if got != nil && (strings.ContainsAny(got.addr+got.laddr, " \r\n") || got.addr == "") {
			t.Fatalf("%q", *got)
		}
	})
}

// What the header says is where CLIENT INFO says the client is.
func TestProxyProtocol(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Config.ProxyProtocol = true })
	r.srv.ids.Store(0)
	up := r.upstream()
	c := r.client()
	_, _ = io.WriteString(c, headers[0].header+"*2\r\n$6\r\nCLIENT\r\n$4\r\nINFO\r\n")
	up.expect("CLIENT INFO")
	up.send("$38\r\nid=9 addr=1.1.1.1:1 laddr=2.2.2.2:2 q\n\r\n")
	c.expect("$52\r\nid=1 addr=192.0.2.1:12345 laddr=198.51.100.2:6380 q\n\r\n")

	bad := r.client()
	bad.send("PING", "PING") // no header
	bad.ended()
	if n := r.srv.stats.Failed.Load(); n != 1 {
		t.Errorf("%d failed, want 1", n)
	}
	other := r.client()
	_, _ = io.WriteString(other, "PROXY UNKNOWN\r\n")
	other.send("PING")
	up.expect("PING")
	up.send("+PONG\r\n")
	other.expect("+PONG\r\n")
}

// A client that never completes its header is closed.
func TestProxyHeaderTooLate(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Config.ProxyProtocol, o.Config.HandshakeTimeout = true, 20*time.Millisecond
	})
	r.upstream()
	silent, half := r.client(), r.client()
	_, _ = io.WriteString(half, "PROXY TCP4 192.0.2.1")
	silent.ended()
	half.ended()
}
