package main

import (
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

// A race is one table of those that this command prints, read again.
type race struct {
	title string
	rows  []raceRow
}

type raceRow struct {
	client    string
	wall, cpu float64 // seconds; NaN if it failed
}

// chart draws the races of a Markdown file that libtorrent took part in, each relative to libtorrent.
func chart(w io.Writer, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	races := slices.DeleteFunc(readRaces(string(text)), func(r race) bool { _, ok := r.of(chartBase); return !ok })
	if len(races) == 0 {
		return errors.New(path + " has no table with a row of " + chartBase)
	}
	_, err = io.WriteString(w, drawChart(races))
	return err
}

const chartBase = "libtorrent"

func (r race) of(client string) (raceRow, bool) {
	i := slices.IndexFunc(r.rows, func(row raceRow) bool { return row.client == client })
	if i < 0 {
		return raceRow{}, false
	}
	return r.rows[i], true
}

// readRaces finds the tables of wall and CPU time below a title in bold.
func readRaces(text string) (races []race) {
	wall, cpu := 0, 0 // columns, or 0 outside of a table
	title := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			wall, cpu = 0, 0
			if _, rest, ok := strings.Cut(line, "**"); ok {
				title, _, _ = strings.Cut(rest, "**")
			}
			continue
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		if i, j := slices.Index(cells, wallColumn.title), slices.Index(cells, cpuColumn.title); i > 0 && j > 0 {
			wall, cpu = i, j
			races = append(races, race{title: title})
			continue
		}
		if wall == 0 || strings.HasPrefix(cells[0], "--") || len(cells) <= max(wall, cpu) {
			continue
		}
		last := &races[len(races)-1]
		last.rows = append(last.rows, raceRow{cells[0], figure(cells[wall]), figure(cells[cpu])})
	}
	return races
}

func figure(cell string) float64 {
	v, err := strconv.ParseFloat(cell, 64)
	if err != nil {
		return math.NaN()
	}
	return v
}

// charted are the clients in the order of their bars, with what they are called and their colour.
var charted = []struct{ client, name, colour string }{
	{"ours", "this library", "#0d7c8c"},
	{"libtorrent", "libtorrent", "#9aa9ae"},
	{"anacrolix", "anacrolix/torrent", "#d08a3c"},
	{"aria2", "aria2", "#b9a6d3"},
}

const (
	chartWidth  = 880
	panelWidth  = 390
	panelGap    = 40
	chartMargin = 30
	barHeight   = 11
	groupHeight = 24 + 4*barHeight + 12
	chartTop    = 84
)

// drawChart is an SVG of two panels, for wall and for CPU time. Less is better, and libtorrent is 1.
func drawChart(races []race) string {
	var b strings.Builder
	height := chartTop + len(races)*groupHeight + 16
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="system-ui, -apple-system, Segoe UI, DejaVu Sans, sans-serif" font-size="12" fill="#22343a">`+"\n",
		chartWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" rx="8" fill="#fff"/>`+"\n", chartWidth, height)
	x := chartMargin
	for _, c := range charted {
		fmt.Fprintf(&b, `<rect x="%d" y="22" width="12" height="12" rx="2" fill="%s"/><text x="%d" y="32">%s</text>`+"\n", x, c.colour, x+18, c.name)
		x += 48 + 7*len(c.name)
	}
	fmt.Fprintf(&b, `<text x="%d" y="32" text-anchor="end" fill="#5c7078">relative to libtorrent, less is better</text>`+"\n", chartWidth-chartMargin)
	drawPanel(&b, chartMargin, "time from start to end", races, func(r raceRow) float64 { return r.wall })
	drawPanel(&b, chartMargin+panelWidth+panelGap, "CPU time", races, func(r raceRow) float64 { return r.cpu })
	b.WriteString("</svg>\n")
	return b.String()
}

func drawPanel(b *strings.Builder, left int, title string, races []race, of func(raceRow) float64) {
	most := 0.0
	for _, r := range races {
		base, _ := r.of(chartBase)
		for _, row := range r.rows {
			if v := of(row) / of(base); v > most && slices.ContainsFunc(charted, func(c struct{ client, name, colour string }) bool { return c.client == row.client }) {
				most = v
			}
		}
	}
	const label = 44 // room for a figure at the end of a bar
	scale := float64(panelWidth-label) / cmp.Or(most, 1)
	bottom := chartTop + len(races)*groupHeight
	fmt.Fprintf(b, `<text x="%d" y="62" font-size="14" font-weight="600">%s</text>`+"\n", left, title)
	one := left + int(scale)
	fmt.Fprintf(b, `<path d="M%d %dV%d" stroke="#c9d4d7" stroke-dasharray="3 3"/>`+"\n", one, chartTop-10, bottom)
	for i, r := range races {
		y := chartTop + i*groupHeight
		fmt.Fprintf(b, `<text x="%d" y="%d" font-size="11" fill="#5c7078">%s</text>`+"\n", left, y+8, escaped(short(r.title)))
		y += 16
		base, _ := r.of(chartBase)
		for _, c := range charted {
			row, ok := r.of(c.client)
			v := of(row) / of(base)
			if !ok {
				continue // it does not take part
			}
			switch {
			case math.IsNaN(v):
				fmt.Fprintf(b, `<text x="%d" y="%d" font-size="10" fill="#b3392f">did not finish</text>`+"\n", left+2, y+9)
			default:
				width := max(1, int(v*scale))
				fmt.Fprintf(b, `<rect x="%d" y="%d" width="%d" height="%d" rx="1.5" fill="%s"/><text x="%d" y="%d" font-size="10">%.2f</text>`+"\n",
					left, y, width, barHeight-2, c.colour, left+width+5, y+9, v)
			}
			y += barHeight
		}
	}
}

// short cuts a title where a panel ends.
func short(title string) string {
	const most = 68
	title, _, _ = strings.Cut(title, " (")
	if runes := []rune(title); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return title
}

func escaped(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s))
	return b.String()
}
