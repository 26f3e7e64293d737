package replica

import (
	"slices"

	"spinnet/canister/agent"
)

// logRing keeps the last lines that a canister printed.
type logRing struct {
	lines []logLine
	bytes int
	next  uint64
}

type logLine struct {
	index, at uint64
	text      string
}

// print adds a line to the canister's log and to the replica's.
func (c *canister) print(text string) {
	c.r.logf("%v prints: %s", c.id, text)
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &c.log
	l.lines = append(l.lines, logLine{l.next, c.r.nanos(), text})
	l.next++
	for l.bytes += len(text) + 16; l.bytes > maxLog; l.lines = l.lines[1:] {
		l.bytes -= len(l.lines[0].text) + 16
	}
	l.lines = slices.Clip(l.lines)
}

// logs is the answer to fetch_canister_logs.
func (c *canister) logs() agent.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	records := agent.Vec{}
	for _, l := range c.log.lines {
		records = append(records, agent.Record{agent.F("idx", l.index), agent.F("timestamp_nanos", l.at), agent.F("content", []byte(l.text))})
	}
	return agent.Record{agent.F("canister_log_records", records)}
}
