package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// The header that a load balancer puts before the first byte of a client, to say where the client comes from:
// https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt. It is read byte for byte as far as it goes, so that the
// connection is the client's afterwards and needs no buffer; the parsers there are wrap the connection.
//
//	v1 = "PROXY" SP ("TCP4" | "TCP6") SP source SP destination SP port SP port CRLF
//	   | "PROXY UNKNOWN" anything CRLF                          107 bytes at most
//	v2 = signature version-and-command family length addresses TLVs
//	       12 bytes           1             1    2 bytes
const (
	headerV1 = "PROXY "
	headerV2 = "\r\n\r\n\x00\r\nQUIT\n"
	// The shortest header there is, "PROXY UNKNOWN\r\n".
	headerLeast = 15
	maxHeaderV1 = 107
	// maxHeaderV2 is what may follow the fixed part of a v2 header, in bytes. What balancers add are names and the
	// like, and a checksum, none of which is looked at.
	maxHeaderV2 = 4 << 10
)

var errNoHeader = errors.New("there is none, although proxy_protocol is on")

// readProxyHeader takes the header off conn and returns the addresses in it, or nil if it speaks for nobody: it does
// not know, or the balancer itself is the client.
func readProxyHeader(conn io.Reader) (*peers, error) {
	b := make([]byte, headerLeast, maxHeaderV1)
	if _, err := io.ReadFull(conn, b); err != nil {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(b, []byte(headerV1)):
		// A byte at a time: it is not known where the line ends, and what comes behind it is not for us.
		for b[len(b)-1] != '\n' {
			if len(b) == maxHeaderV1 {
				return nil, fmt.Errorf("no end of line within %d bytes", maxHeaderV1)
			}
			b = b[:len(b)+1]
			if _, err := io.ReadFull(conn, b[len(b)-1:]); err != nil {
				return nil, err
			}
		}
		return parseHeaderV1(string(b))
	case bytes.HasPrefix(b, []byte(headerV2)):
		var last [1]byte
		if _, err := io.ReadFull(conn, last[:]); err != nil {
			return nil, err
		}
		length := int64(binary.BigEndian.Uint16([]byte{b[14], last[0]}))
		if length > maxHeaderV2 {
			return nil, fmt.Errorf("%d bytes long, at most %d are taken", length, maxHeaderV2)
		}
		return readHeaderV2(io.LimitReader(conn, length), b[12], b[13], int(length))
	}
	return nil, errNoHeader
}

func parseHeaderV1(line string) (*peers, error) {
	text, ok := strings.CutSuffix(line, "\r\n")
	if !ok {
		return nil, fmt.Errorf("%q does not end in CRLF", line)
	}
	words := strings.Split(text, " ")
	if words[1] == "UNKNOWN" {
		return nil, nil
	}
	if len(words) == 6 && (words[1] == "TCP4" || words[1] == "TCP6") {
		six := words[1] == "TCP6"
		from, ok1 := parseAddrPort(words[2], words[4], six)
		to, ok2 := parseAddrPort(words[3], words[5], six)
		if ok1 && ok2 {
			return &peers{from, to}, nil
		}
	}
	return nil, fmt.Errorf("%q is not understood", text)
}

// parseAddrPort puts an address and a port together; six says of which family they have to be.
func parseAddrPort(ip, port string, six bool) (string, bool) {
	addr, err := netip.ParseAddr(ip)
	n, ok := parseInt([]byte(port))
	if err != nil || addr.Zone() != "" || addr.Is6() != six || !ok || n < 0 || n > 65535 {
		return "", false
	}
	return net.JoinHostPort(addr.String(), strconv.FormatInt(n, 10)), true
}

// readHeaderV2 reads all that r has: the part of a v2 header behind its length.
func readHeaderV2(r io.Reader, command, family byte, length int) (*peers, error) {
	const (
		local, proxy = 0x20, 0x21 // version 2 in the upper half
		tcp4, tcp6   = 0x11, 0x21
	)
	size := map[byte]int{tcp4: 4, tcp6: 16}[family]
	var b [2*16 + 4]byte
	n := min(length, len(b))
	if _, err := io.ReadFull(r, b[:n]); err != nil {
		return nil, err
	}
	if rest, err := io.Copy(io.Discard, r); err != nil {
		return nil, err
	} else if n+int(rest) < length {
		return nil, io.ErrUnexpectedEOF
	}
	switch {
	case command == local:
		return nil, nil
	case command != proxy:
		return nil, fmt.Errorf("version and command 0x%02x are not known", command)
	case size == 0:
		return nil, nil // a unix socket, or something that has no address to show
	case n < 2*size+4:
		return nil, fmt.Errorf("%d bytes are too few for two addresses of family 0x%02x", length, family)
	}
	from, _ := netip.AddrFromSlice(b[:size])
	to, _ := netip.AddrFromSlice(b[size : 2*size])
	ports := b[2*size:]
	return &peers{
		netip.AddrPortFrom(from, binary.BigEndian.Uint16(ports)).String(),
		netip.AddrPortFrom(to, binary.BigEndian.Uint16(ports[2:])).String(),
	}, nil
}
