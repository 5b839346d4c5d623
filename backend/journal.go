package backend

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"keyrow/mapping"
	"keyrow/rarely"
)

// layoutEvery is how often the eviction policy of Redis and the layout of the journal are looked at again: for so long a
// write may be taken that Redis may evict.
const layoutEvery = time.Second

var scriptMeta = newScript("meta")

// Journal is what a process knows of the journal as a whole: its layout, how many marks are pending, and whether more
// may be added. It is the gate of the write path.
type Journal struct {
	cfg  JournalConfig
	keys mapping.Journal
	rdb  *redis.Client
	log  zerolog.Logger

	// Marks pending: those of the last count, less those settled since, plus those this process added since. The
	// marks that other processes add show with the next count, one interval later at most.
	counted atomic.Int64
	added   atomic.Int64
	most    atomic.Int64 // of them

	parked  atomic.Int64
	oldest  atomic.Int64 // Unix milliseconds of the oldest mark, 0: none
	refusal atomic.Pointer[Error]
	rate    speed
	epoch   string       // of the meta hash, when it was last seen; who counts has it
	losses  atomic.Int64 // how often Redis came back without it
}

// speed is how many marks a second all processes work off, over a second or so.
type speed struct {
	perSecond atomic.Int64
	since     time.Time
	settled   int64 // at that time
}

// rateOver is how long a speed is measured at least.
const rateOver = time.Second

// count takes in how many marks there have been settled by now.
func (r *speed) count(settled int64) {
	now := time.Now()
	took := now.Sub(r.since)
	if took < rateOver {
		return
	}
	if !r.since.IsZero() {
		r.perSecond.Store(int64(float64(max(0, settled-r.settled)) / took.Seconds()))
	}
	r.since, r.settled = now, settled
}

// OpenJournal checks the layout found in Redis against cfg, writes it if there is none, and counts what is pending.
// It fails with a *LayoutError if the journal was laid out otherwise and still holds marks or parked keys, for one key
// must never have marks in two partitions.
func OpenJournal(ctx context.Context, rdb *redis.Client, cfg JournalConfig, log zerolog.Logger) (*Journal, error) {
	j := &Journal{
		cfg:  cfg,
		keys: mapping.Journal{Prefix: cfg.Prefix, Partitions: cfg.Partitions},
		rdb:  rdb,
		log:  log,
	}
	j.SetMaxPending(cfg.MaxPending)
	if err := j.checkLayout(ctx); err != nil {
		return nil, err
	}
	if err := j.count(ctx); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return j, nil
}

// Keys names the keys of the journal.
func (j *Journal) Keys() mapping.Journal { return j.keys }

// Admit returns nil if a write may be marked now, or else the error reply of a write that was not applied.
func (j *Journal) Admit() error {
	if refusal := j.refusal.Load(); refusal != nil {
		return refusal
	}
	if n, most := j.Pending(), j.most.Load(); n >= most {
		return &Error{CodeJournalFull, fmt.Sprintf("%d writes wait for mysql and max_pending is %d: nothing was "+
			"applied, repeat it once mysql has caught up (pending in KEYROW INFO) or raise journal.max_pending",
			n, most)}
	}
	return nil
}

// MaxPending is the number of pending marks from which on none is admitted.
func (j *Journal) MaxPending() int { return int(j.most.Load()) }

// SetMaxPending sets MaxPending from now on.
func (j *Journal) SetMaxPending(most int) { j.most.Store(int64(most)) }

// Marked tells that n marks were added to the journal, as ZADD replied.
func (j *Journal) Marked(n int) { j.added.Add(int64(n)) }

// Pending is the number of marks that wait in all partitions, those added by other processes since the last count
// not included.
func (j *Journal) Pending() int64 { return max(0, j.counted.Load()+j.added.Load()) }

// age is how long ago the oldest mark was made, as of the last count; 0: none waits.
func (j *Journal) age() time.Duration {
	oldest := j.oldest.Load()
	if oldest == 0 {
		return 0
	}
	return max(0, time.Since(time.UnixMilli(oldest)))
}

// settled tells that n marks were taken out.
func (j *Journal) settled(n int64) { j.counted.Add(-n) }

// watch keeps the counts and the refusal up to date until ctx ends.
func (j *Journal) watch(ctx context.Context) {
	tick := time.NewTicker(j.cfg.Interval)
	defer tick.Stop()
	often := rarely.Log(j.log)
	looked := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := j.count(ctx)
		if err == nil && (j.epoch == "" || time.Since(looked) >= layoutEvery) {
			err = j.look(ctx)
			looked = time.Now()
		}
		if err != nil && ctx.Err() == nil {
			often.Warn().Err(err).Msg("the journal cannot be counted; the last count stands")
		}
	}
}

// look decides anew whether writes are refused whatever the number of marks.
func (j *Journal) look(ctx context.Context) error {
	fields, err := info(ctx, j.rdb, "memory")
	if err != nil {
		return err
	}
	refuse := func(text string) {
		if j.refusal.Swap(&Error{CodeErr, text + ": nothing was applied"}) == nil {
			j.log.Error().Msg("writes are refused: " + text)
		}
	}
	if policy := fields["maxmemory_policy"]; strings.HasPrefix(policy, "allkeys-") {
		refuse("redis has maxmemory-policy " + policy + ", which may evict a write before it reaches mysql; " +
			"set volatile-lru or noeviction")
		return nil
	}
	switch err := j.checkLayout(ctx); err.(type) {
	case nil:
	case *LayoutError:
		refuse(err.Error())
		return nil
	default:
		return err
	}
	if j.refusal.Swap(nil) != nil {
		j.log.Info().Msg("writes are accepted again")
	}
	return nil
}

// LayoutError says that the journal in Redis has another layout than the one configured and is still in use.
type LayoutError struct {
	Prefix                             string
	Format, Partitions                 string // as found
	ConfiguredFormat, ConfiguredNumber int
	Marks, Parked                      int64
}

func (e *LayoutError) Error() string {
	return fmt.Sprintf("the journal %q is laid out in format %s with %s partitions, this process is configured for "+
		"format %d with %d, and %d marks and %d parked keys are in it: flush and clear it with the earlier "+
		"configuration first, or set journal.partitions = %s",
		e.Prefix, e.Format, e.Partitions, e.ConfiguredFormat, e.ConfiguredNumber, e.Marks, e.Parked, e.Partitions)
}

// CheckLayout says, and changes nothing, whether OpenJournal would find the layout of another configuration in use: a
// *LayoutError.
func CheckLayout(ctx context.Context, rdb *redis.Client, cfg JournalConfig) error {
	j := &Journal{cfg: cfg, keys: mapping.Journal{Prefix: cfg.Prefix, Partitions: cfg.Partitions}, rdb: rdb}
	return j.compareLayout(ctx, 0)
}

// checkLayout compares the layout in Redis with ours, in one step with writing ours where that harms nothing.
func (j *Journal) checkLayout(ctx context.Context) error { return j.compareLayout(ctx, 1) }

func (j *Journal) compareLayout(ctx context.Context, write int) error {
	reply, err := scriptMeta.Run(ctx, j.rdb, []string{j.keys.Meta()},
		mapping.JournalFormat, j.cfg.Partitions, j.cfg.Prefix, write, rand.Text()).Slice()
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if write == 1 {
		j.saw(fmt.Sprint(reply[4]))
	}
	format, partitions := fmt.Sprint(reply[0]), fmt.Sprint(reply[1])
	if format == strconv.Itoa(mapping.JournalFormat) && partitions == strconv.Itoa(j.cfg.Partitions) {
		return nil
	}
	return &LayoutError{
		Prefix: j.cfg.Prefix, Format: format, Partitions: partitions,
		ConfiguredFormat: mapping.JournalFormat, ConfiguredNumber: j.cfg.Partitions,
		Marks: reply[2].(int64), Parked: reply[3].(int64),
	}
}

// count counts the marks and parked keys of all partitions in one round trip.
func (j *Journal) count(ctx context.Context) error {
	added := j.added.Load() // what is added from here on may be counted twice until the next count, never missed
	pipe := j.rdb.Pipeline()
	meta := pipe.HMGet(ctx, j.keys.Meta(), "epoch", "settled")
	var sets []*redis.IntCmd
	var parked []*redis.IntCmd
	var oldest []*redis.ZSliceCmd
	for p := range j.cfg.Partitions {
		names := j.partition(p)
		for _, set := range []string{names.dirty, names.flushing} {
			sets = append(sets, pipe.ZCard(ctx, set))
			oldest = append(oldest, pipe.ZRangeWithScores(ctx, set, 0, 0))
		}
		parked = append(parked, pipe.HLen(ctx, names.parked))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	var marks, held, first int64
	for i, set := range sets {
		marks += set.Val()
		if z := oldest[i].Val(); len(z) > 0 && (first == 0 || int64(z[0].Score) < first) {
			first = int64(z[0].Score)
		}
	}
	for _, n := range parked {
		held += n.Val()
	}
	epoch, _ := meta.Val()[0].(string)
	j.saw(epoch)
	settled, _ := meta.Val()[1].(string)
	n, _ := strconv.ParseInt(settled, 10, 64)
	j.rate.count(n)
	j.counted.Store(marks)
	j.added.Add(-added)
	j.parked.Store(held)
	j.oldest.Store(first)
	return nil
}

// saw compares the epoch of the journal with the one there was before. Another one, or none, says that Redis came back
// empty, or was emptied, past keyrow; what had been written and was not in MySQL yet is gone with it, marks and all, so
// that nothing else would tell of it.
func (j *Journal) saw(epoch string) {
	was := j.epoch
	j.epoch = epoch
	if was == "" || epoch == was {
		return
	}
	j.losses.Add(1)
	j.log.Error().Int64("pending", j.Pending()).Int64("parked", j.parked.Load()).
		Msg("redis has lost the journal: it came back empty, or was emptied past keyrow; the writes that were pending then " +
			"and are not in mysql are lost; use appendonly yes, and FLUSHALL through keyrow")
}

// partition is the names of the keys of one partition.
type partition struct{ fence, dirty, flushing, expire, parked, stale string }

func (j *Journal) partition(p int) partition {
	return partition{
		fence:    string(j.keys.AppendFence(nil, p)),
		dirty:    string(j.keys.AppendDirty(nil, p)),
		flushing: string(j.keys.AppendFlushing(nil, p)),
		expire:   string(j.keys.AppendExpire(nil, p)),
		parked:   string(j.keys.AppendParked(nil, p)),
		stale:    string(j.keys.AppendStale(nil, p)),
	}
}
