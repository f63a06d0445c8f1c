package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// The picture is that of the tables beside it: go run -C bench . -chart README.md >bench/chart.svg
func TestChartIsOfTheTables(t *testing.T) {
	var drawn bytes.Buffer
	if err := chart(&drawn, "README.md"); err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile("chart.svg")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, drawn.Bytes()) {
		t.Error("chart.svg is of other figures than README.md: go run -C bench . -chart README.md >bench/chart.svg")
	}
}

func TestChart(t *testing.T) {
	races := readRaces("**A <race>**, of two\n\n| | wall, s | ÷ libtorrent | CPU, s | memory, MiB |\n|---|---:|---:|---:|---:|\n" +
		"| ours | 2.00 | 0.50 | 3.00 | 1 |\n| libtorrent | 4.00 | 1.00 | 4.00 | 1 |\n| anacrolix | failed: not done | – | – | – |\n\n| a | b |\n|---|---|\n| c | d |\n")
	if len(races) != 1 || len(races[0].rows) != 3 || races[0].rows[0] != (raceRow{"ours", 2, 3}) {
		t.Fatalf("%+v", races)
	}
	svg := drawChart(races)
	for _, want := range []string{">0.50<", ">0.75<", "did not finish", "A &lt;race&gt;"} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %s in %s", want, svg)
		}
	}
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
