package handover

import (
	"net"
	"testing"
)

func TestIsAt(t *testing.T) {
	tcp := func(ip string, port int) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: port} }
	local := &net.UnixAddr{Name: "/run/s", Net: "unix"}
	for _, test := range []struct {
		at   net.Addr
		addr string
		want bool
	}{
		{tcp("127.0.0.1", 6380), "127.0.0.1:6380", true},
		{tcp("127.0.0.1", 6380), "localhost:6380", true},
		{tcp("127.0.0.1", 6380), "127.0.0.1:6381", false},
		{tcp("127.0.0.1", 6380), "127.0.0.2:6380", false},
		{tcp("127.0.0.1", 6380), ":6380", false},
		{tcp("::", 6380), ":6380", true},
		{tcp("::", 6380), "0.0.0.0:6380", true},
		{tcp("::", 6380), "[::]:6380", true},
		{tcp("::", 6380), "127.0.0.1:6380", false},
		{tcp("::1", 6380), "[::1]:6380", true},
		{local, "unix:///run/s", true},
		{local, "unix:///run/t", false},
		{local, "127.0.0.1:6380", false},
		{tcp("127.0.0.1", 6380), "unix:///run/s", false},
	} {
		if got := isAt(test.at, test.addr); got != test.want {
			t.Errorf("isAt(%v, %q) = %v", test.at, test.addr, got)
		}
	}
}
