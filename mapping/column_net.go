package mapping

import (
	"fmt"
	"net/netip"
	"strconv"
)

// uuidCodec is for UUID of MariaDB: 36 characters, small hex digits.
func uuidCodec(*Column) (codec, error) {
	return spelled("-0123456789abcdef", func(dst, s []byte) ([]byte, error) {
		var uuid [36]byte
		ok := len(s) == len(uuid)
		for i := 0; ok && i < len(uuid); i++ {
			if i == 8 || i == 13 || i == 18 || i == 23 {
				uuid[i], ok = '-', s[i] == '-'
				continue
			}
			var n byte
			n, ok = hexDigit(s[i])
			uuid[i] = hexDigits[n]
		}
		if !ok {
			return dst, fmt.Errorf("%s is not a uuid", quote(s))
		}
		return append(dst, uuid[:]...), nil
	}), nil
}

// inetCodec is for INET4 and INET6 of MariaDB.
func inetCodec(c *Column) (codec, error) {
	return spelled(".:0123456789abcdef", func(dst, s []byte) ([]byte, error) {
		a, err := netip.ParseAddr(string(s))
		if err != nil || a.Zone() != "" || a.Is4() != (c.Type == "inet4") {
			return dst, fmt.Errorf("%s is not an address of type %s", quote(s), c.Type)
		}
		if a.Is4() {
			return a.AppendTo(dst), nil
		}
		return appendInet6(dst, a.As16()), nil
	}), nil
}

// appendInet6 spells an address as MariaDB does: other than RFC 5952, it shortens a single zero group too, and gives
// the last 32 bits as an IPv4 address where all before them are zero.
func appendInet6(dst []byte, a [16]byte) []byte {
	var groups [8]uint16
	for i := range groups {
		groups[i] = uint16(a[2*i])<<8 | uint16(a[2*i+1])
	}
	gap, gapLen := -1, 0 // the first of the longest runs of zero groups
	for i := 0; i < len(groups); i++ {
		run := 0
		for i+run < len(groups) && groups[i+run] == 0 {
			run++
		}
		if run > gapLen {
			gap, gapLen = i, run
		}
		i += run
	}
	for i := 0; i < len(groups); i++ {
		switch {
		case i == gap:
			if i == 0 {
				dst = append(dst, ':')
			}
			dst = append(dst, ':')
			i += gapLen - 1
		case i == 6 && gap == 0 && (gapLen == 6 || gapLen == 5 && groups[5] == 0xffff):
			return netip.AddrFrom4([4]byte(a[12:])).AppendTo(dst)
		default:
			dst = strconv.AppendUint(dst, uint64(groups[i]), 16)
			if i+1 < len(groups) {
				dst = append(dst, ':')
			}
		}
	}
	return dst
}
