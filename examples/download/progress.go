package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/examples/internal/human"
)

// show tells on standard error how the downloads get on, until stop is called: with a bar on a terminal, else with a
// line every five seconds. If that cannot be written, it cancels them.
func show(f *fetch, cancel context.CancelCauseFunc) (stop func()) {
	line, every, end := plainLine, 5*time.Second, ""
	if isTerminal(os.Stderr) {
		line, every, end = bar, 200*time.Millisecond, "\n"
	}
	done := make(chan struct{})
	var showing sync.WaitGroup
	showing.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for last := false; !last; {
			select {
			case <-tick.C:
			case <-done:
				last = true
			}
			downloads := f.running()
			if len(downloads) == 0 {
				continue
			}
			text := line(sum(downloads))
			if last {
				text += end
			}
			if _, err := fmt.Fprint(os.Stderr, text); err != nil {
				cancel(err)
				return
			}
		}
	})
	return func() {
		close(done)
		showing.Wait()
	}
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// sum adds up what all downloads together have to show.
func sum(downloads []*torrent.Download) (all torrent.Stats) {
	for _, d := range downloads {
		s := d.Stats()
		all.Wanted += s.Wanted
		all.Verified += s.Verified
		all.DownloadRate += s.DownloadRate
		all.Checking = all.Checking || s.Checking
		all.Peers = append(all.Peers, s.Peers...)
		all.Trackers = append(all.Trackers, s.Trackers...)
		all.WebSeeds = append(all.WebSeeds, s.WebSeeds...)
		// The last to be done decides, and none is known to be if one is not.
		if all.ETA >= 0 && (s.ETA < 0 || s.ETA > all.ETA) {
			all.ETA = s.ETA
		}
	}
	return all
}

func plainLine(s torrent.Stats) string {
	line := fmt.Sprintf("%5.1f %%  %s", 100*share(s), describe(s))
	for _, t := range s.Trackers {
		if len(s.Peers) == 0 && t.Err != nil {
			line += "  " + t.Err.Error() // why there are no peers
			break
		}
	}
	return line + "\n"
}

// bar is a line that takes the place of the one before it.
func bar(s torrent.Stats) string {
	const width = 24
	full := int(share(s) * width)
	return fmt.Sprintf("\r\x1b[K%3.0f %% %s%s  %s", 100*share(s), strings.Repeat("█", full), strings.Repeat("░", width-full), describe(s))
}

// share is how much of what is wanted is verified, from 0 to 1.
func share(s torrent.Stats) float64 {
	if s.Wanted == 0 {
		return 1
	}
	return float64(s.Verified) / float64(s.Wanted)
}

func describe(s torrent.Stats) string {
	if s.Checking {
		return "checking what is there"
	}
	if s.Verified == s.Wanted {
		return "complete"
	}
	eta := "unknown"
	if s.ETA >= 0 {
		eta = s.ETA.Round(time.Second).String()
	}
	from := human.Count(len(s.Peers), "peer")
	active := 0
	for _, w := range s.WebSeeds {
		if w.Requests > 0 {
			active++
		}
	}
	if active > 0 {
		from += " and " + human.Count(active, "web seed")
	}
	return fmt.Sprintf("%s from %s, ETA %s", human.Rate(s.DownloadRate), from, eta)
}
