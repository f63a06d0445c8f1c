package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/shoal-go/torrent"
)

// show tells how the downloads get on until stop is called: with a bar on a terminal, else with a
// line every five seconds.
func show(downloads []*torrent.Download) (stop func()) {
	update, every, end := printLine, 5*time.Second, ""
	if term.IsTerminal(int(os.Stderr.Fd())) {
		bar := progressbar.NewOptions64(1,
			progressbar.OptionSetWriter(os.Stderr),
			progressbar.OptionUseANSICodes(true),
			progressbar.OptionSetWidth(30),
			progressbar.OptionSetTheme(progressbar.Theme{Saucer: "█", SaucerPadding: "░", BarStart: " ", BarEnd: " "}),
			progressbar.OptionSetPredictTime(false),
			progressbar.OptionSetElapsedTime(false),
		)
		update = func(s torrent.Stats) {
			bar.ChangeMax64(max(1, s.Wanted))
			bar.Describe(describe(s))
			bar.Set64(s.Verified)
		}
		every, end = 200*time.Millisecond, "\n"
	}

	done := make(chan struct{})
	var showing sync.WaitGroup
	showing.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				update(sum(downloads))
			case <-done:
				update(sum(downloads))
				fmt.Fprint(os.Stderr, end)
				return
			}
		}
	})
	return func() {
		close(done)
		showing.Wait()
	}
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
		// The last to be done decides, and none is known to be if one is not.
		if all.ETA >= 0 && (s.ETA < 0 || s.ETA > all.ETA) {
			all.ETA = s.ETA
		}
	}
	return all
}

func printLine(s torrent.Stats) {
	line := fmt.Sprintf("%5.1f %%  %s", 100*float64(s.Verified)/float64(max(1, s.Wanted)), describe(s))
	for _, t := range s.Trackers {
		if len(s.Peers) == 0 && t.Err != nil {
			line += "  " + t.Err.Error() // why there are no peers
			break
		}
	}
	fmt.Fprintln(os.Stderr, line)
}

func describe(s torrent.Stats) string {
	if s.Checking {
		return "checking what is there"
	}
	eta := "unknown"
	if s.ETA >= 0 {
		eta = s.ETA.Round(time.Second).String()
	}
	return fmt.Sprintf("%7.2f MB/s  %2d peers  ETA %s", s.DownloadRate/1e6, len(s.Peers), eta)
}
