package mapping

import (
	"fmt"
	"testing"
)

func TestJournalNames(t *testing.T) {
	j := Journal{Prefix: "keyrow", Partitions: 4}
	for _, test := range []struct{ got, want string }{
		{string(j.AppendAux([]byte("x"), []byte("user:{1}"))), "xkeyrow:aux:{user:{1}}"},
		{string(j.AppendDirty(nil, 0)), "keyrow:{0}:dirty"},
		{string(j.AppendFlushing(nil, 3)), "keyrow:{3}:flushing"},
		{string(j.AppendParked(nil, 1)), "keyrow:{1}:parked"},
		{string(j.AppendExpire(nil, 1)), "keyrow:{1}:expire"},
		{string(j.AppendFence(nil, 12)), "keyrow:{12}:fence"},
		{j.Meta(), "keyrow:meta"},
	} {
		if test.got != test.want {
			t.Errorf("got %s, want %s", test.got, test.want)
		}
	}
}

func TestJournalReserved(t *testing.T) {
	j := Journal{Prefix: "keyrow"}
	for key, want := range map[string]bool{
		"keyrow:meta": true, "keyrow:": true, "keyrow": false, "keyrows:x": false, "Keyrow:x": false, "": false, "xkeyrow:x": false,
	} {
		if j.Reserved([]byte(key)) != want {
			t.Errorf("%q: %v", key, !want)
		}
	}
}

// TestJournalPartition: the partition of a key is part of the format, and keys spread over all of them.
func TestJournalPartition(t *testing.T) {
	j := Journal{Partitions: 4}
	if got := j.Partition([]byte("user:42")); got != 2 {
		t.Errorf("user:42 is in partition %d", got)
	}
	var n [4]int
	for i := range 4000 {
		n[j.Partition(fmt.Appendf(nil, "user:%d", i))]++
	}
	for p := range n {
		if n[p] < 800 {
			t.Errorf("partitions hold %v of 4000 keys", n)
		}
	}
}
