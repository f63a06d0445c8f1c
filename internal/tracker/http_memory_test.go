package tracker

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/httpguard"
	"github.com/shoal-go/torrent/internal/memtest"
	"github.com/shoal-go/torrent/internal/simnet"
)

// An answer is held in memory until it is whole, or for half a minute. Stalled answers of two hundred servers, of a few kilobytes
// each on the wire, must not hold much memory, neither for the bodies that they inflate to nor for their headers.
func TestStalledAnswersHoldLittle(t *testing.T) {
	var list, header bytes.Buffer
	list.WriteString("HTTP/1.1 200 OK\r\n\r\n")
	z := gzip.NewWriter(&list)
	z.Write(make([]byte, httpAnswer-1))
	z.Flush()
	header.WriteString("HTTP/1.1 200 OK\r\n")
	for i := 0; header.Len() < httpguard.MaxHeader-100; i++ {
		fmt.Fprintf(&header, "%x:\r\n", i)
	}
	for name, answer := range map[string][]byte{"list": list.Bytes(), "header": header.Bytes()} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var tiers [][]string
				for i := range maxTrackers {
					tiers = append(tiers, []string{fmt.Sprintf("http://10.0.1.%d/announce", i)})
				}
				r := newTrackerRig(t, tiers...)
				r.hungry = true
				for i := range maxTrackers {
					if i == 20 {
						r.serve("10.0.1.20", honest(new(said), "d8:completei7ee"))
						continue
					}
					r.serve(fmt.Sprintf("10.0.1.%d", i), func(w http.ResponseWriter, _ *http.Request) {
						conn, _, err := w.(http.Hijacker).Hijack()
						if err != nil {
							return
						}
						defer conn.Close()
						conn.Write(answer)
						conn.Read(make([]byte, 1))
					})
				}
				before := memtest.Heap()
				trackers, _ := r.start()
				simnet.Sleep(hungryPatience*maxTrackers/askedAtOnce + 2*time.Second)
				held := memtest.Heap() - before
				t.Logf("%d MiB", held>>20)
				require.Less(t, held, int64(56<<20))
				require.True(t, slices.ContainsFunc(trackers.Status(), func(s Status) bool { return s.Peers == 0 && s.Swarm.Seeds == 7 }), "the answer of an honest tracker is read")
			})
		})
	}
}

// Of the text in an answer only the part that is shown is kept, even if the answer is long: a megabyte of it takes a kilobyte
// on the wire.
func TestLongTextsInAnswersAreNotKept(t *testing.T) {
	for _, key := range []string{"warning message", "failure reason"} {
		t.Run(key, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const trackers = 50
				var body bytes.Buffer
				z := gzip.NewWriter(&body)
				text := bytes.Repeat([]byte("a"), httpAnswer-100)
				fmt.Fprintf(z, "d%d:%s%d:%s8:intervali86400ee", len(key), key, len(text), text)
				z.Close()
				require.Less(t, body.Len(), 2<<10)
				var tiers [][]string
				for i := range trackers {
					tiers = append(tiers, []string{fmt.Sprintf("http://10.0.1.1/announce/%d", i)})
				}
				r := newTrackerRig(t, tiers...)
				r.serve("10.0.1.1", func(w http.ResponseWriter, _ *http.Request) { w.Write(body.Bytes()) })
				before := memtest.Heap()
				a, _ := r.start()
				simnet.Sleep(5 * time.Minute)
				held := memtest.Heap() - before
				t.Logf("%d KiB", held>>10)
				require.Less(t, held, int64(8<<20))
				require.False(t, slices.ContainsFunc(a.Status(), func(s Status) bool { return s.Warning == "" && s.Err == nil }), "all are asked")
			})
		})
	}
}
