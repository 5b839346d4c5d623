package mapping

import (
	"hash/crc32"
	"strconv"
)

// JournalFormat is the version of the layout described at [Journal], stored as "format" in the meta hash.
const JournalFormat = 1

// Signs of a mark: the first byte of a member of the dirty and flushing sets, before the key.
const (
	MarkWritten = '+' // the image of the key is to be written to its row
	MarkDeleted = '-' // the row of the key is to be deleted
	MarkMaybe   = '?' // a script had the key at hand: the image, if there is one, is to be written
)

// Journal names the keys under which keyrow keeps its own data in Redis, beside the data of its clients.
//
//	<prefix>:aux:{<key>}     string  a fill's lease token, or NegativeEntry; deleted by every write of <key>
//	                         hash    with stale_while_error: "image", a copy of it as DUMP has it, which may be served
//	                                 until "until", Unix milliseconds; and a fill's "token", good until "lease"
//	<prefix>:aside:{<key>}:<token>   a large result while it is read, until the fill renames it to <key>
//	<prefix>:{<p>}:dirty     zset    marks, scored with the milliseconds (Unix) at which a key was first marked
//	<prefix>:{<p>}:flushing  zset    the marks of the sweep that is being flushed
//	<prefix>:{<p>}:parked    hash    key -> why its row could not be written, as JSON
//	<prefix>:{<p>}:expire    hash    key -> the deadline, in Unix milliseconds, to arm once the key is flushed; 0: evict; never: none
//	<prefix>:{<p>}:stale     set     keys of other partitions or mappings whose rows a flush changes: "<their p>:<key>"
//	<prefix>:{<p>}:fence     string  names the newest owner of the partition, the only one that may sweep and settle
//	<prefix>:stamp           string  nothing; written before each WAIT for replicas, see durability
//	<prefix>:meta            hash    "format" and "partitions" of everything above; "epoch", a random name that it keeps
//	                                 until Redis loses its data; "settled", the number of marks that were worked off
//
// p is the partition of a key, from 0 to Partitions-1. All marks of one key are in one partition, so one owner
// flushes them and their order is kept.
type Journal struct {
	Prefix     string
	Partitions int
}

// NegativeEntry is the value of an aux key that says the row does not exist. Lease tokens never equal it.
const NegativeEntry = "-"

// Partition tells in which partition the marks of key are.
func (j Journal) Partition(key []byte) int {
	return int(crc32.ChecksumIEEE(key) % uint32(j.Partitions))
}

// Reserved reports whether key belongs to keyrow, so that no client may touch it.
func (j Journal) Reserved(key []byte) bool {
	n := len(j.Prefix)
	return len(key) > n && key[n] == ':' && string(key[:n]) == j.Prefix
}

// AppendAux appends the name of the aux key of key.
func (j Journal) AppendAux(b, key []byte) []byte {
	b = append(b, j.Prefix...)
	b = append(b, ":aux:{"...)
	b = append(b, key...)
	return append(b, '}')
}

// AppendAside appends the name of the key where a result for key is built under the lease of token.
func (j Journal) AppendAside(b, key []byte, token string) []byte {
	b = append(b, j.Prefix...)
	b = append(b, ":aside:{"...)
	b = append(b, key...)
	b = append(b, "}:"...)
	return append(b, token...)
}

// AppendDirty appends the name of the dirty set of partition p.
func (j Journal) AppendDirty(b []byte, p int) []byte { return j.appendPart(b, p, "dirty") }

// AppendFlushing appends the name of the set of the sweep under way.
func (j Journal) AppendFlushing(b []byte, p int) []byte { return j.appendPart(b, p, "flushing") }

// AppendParked appends the name of the hash of parked keys.
func (j Journal) AppendParked(b []byte, p int) []byte { return j.appendPart(b, p, "parked") }

// AppendExpire appends the name of the hash of deadlines.
func (j Journal) AppendExpire(b []byte, p int) []byte { return j.appendPart(b, p, "expire") }

// AppendStale appends the name of the set of keys that a flush makes stale.
func (j Journal) AppendStale(b []byte, p int) []byte { return j.appendPart(b, p, "stale") }

// AppendFence appends the name of the fence.
func (j Journal) AppendFence(b []byte, p int) []byte { return j.appendPart(b, p, "fence") }

// Stamp is the name of what is written before each WAIT.
func (j Journal) Stamp() string { return j.Prefix + ":stamp" }

// Meta is the name of the meta hash.
func (j Journal) Meta() string { return j.Prefix + ":meta" }

func (j Journal) appendPart(b []byte, p int, name string) []byte {
	b = append(b, j.Prefix...)
	b = append(b, ":{"...)
	b = strconv.AppendInt(b, int64(p), 10)
	b = append(b, "}:"...)
	return append(b, name...)
}
