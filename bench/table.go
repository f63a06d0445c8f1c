package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// column is one of a table: its title, and its text for a client's runs, given those of all.
type column struct {
	title string
	text  func(runs []result, all map[string][]result) string
}

func wallOf(r result) float64       { return r.wall.Seconds() }
func cpuOf(r result) float64        { return r.cpu.Seconds() }
func memoryOf(r result) float64     { return r.memory }
func goroutinesOf(r result) float64 { return r.goroutines }
func wastedOf(r result) float64     { return r.wasted }

var (
	wallColumn = column{"wall, s", func(runs []result, _ map[string][]result) string {
		return fmt.Sprintf("%.2f", median(runs, wallOf))
	}}
	idealColumn = column{"÷ ideal", func(runs []result, _ map[string][]result) string {
		return fmt.Sprintf("%.2f", median(runs, wallOf)/runs[0].ideal.Seconds())
	}}
	cpuColumn = column{"CPU, s", func(runs []result, _ map[string][]result) string {
		return fmt.Sprintf("%.2f", median(runs, cpuOf))
	}}
	memoryColumn = column{"memory, MiB", func(runs []result, _ map[string][]result) string {
		return fmt.Sprintf("%.0f", median(runs, memoryOf)/mebibyte)
	}}
)

// against is a column of ratios to another client.
func against(base string, of func(result) float64) column {
	return column{"÷ " + base, func(runs []result, all map[string][]result) string { return ratio(runs, all[base], of) }}
}

// raceColumns compare with a client.
func raceColumns(base string) []column {
	return []column{wallColumn, against(base, wallOf), cpuColumn, against(base, cpuOf), memoryColumn}
}

// limitColumns compare the wall time with what the swarm allows, and the CPU time with the floor's.
var limitColumns = []column{wallColumn, idealColumn, cpuColumn, against("floor", cpuOf), memoryColumn}

// crowdColumns say how much came beyond the content.
var crowdColumns = []column{wallColumn, cpuColumn, memoryColumn,
	{"wasted, MiB", func(runs []result, _ map[string][]result) string {
		return fmt.Sprintf("%.1f", median(runs, wastedOf)/mebibyte)
	}},
	{"at most", func(runs []result, _ map[string][]result) string {
		most := 0.0
		for _, r := range runs {
			most = max(most, r.wasted)
		}
		return fmt.Sprintf("%.1f", most/mebibyte)
	}},
}

var idleColumns = []column{
	{"memory a torrent, KB", func(runs []result, _ map[string][]result) string {
		return fmt.Sprintf("%.1f", median(runs, memoryOf)/1000)
	}},
	{"goroutines a torrent", func(runs []result, _ map[string][]result) string {
		if n := median(runs, goroutinesOf); n > 0 {
			return fmt.Sprintf("%.2f", n)
		}
		return "–"
	}},
	{fmt.Sprintf("CPU of %.0f s, s", idling.Seconds()), func(runs []result, _ map[string][]result) string {
		return fmt.Sprintf("%.2f", median(runs, cpuOf))
	}},
	{"ready after, s", func(runs []result, _ map[string][]result) string {
		return fmt.Sprintf("%.2f", median(runs, wallOf))
	}},
}

func median(runs []result, of func(result) float64) float64 {
	var values []float64
	for _, r := range runs {
		values = append(values, of(r))
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

func ratio(runs, base []result, of func(result) float64) string {
	if len(base) == 0 || base[len(base)-1].failed != "" || median(base, of) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", median(runs, of)/median(base, of))
}

// printTable writes a row a client. A client that failed once has no figures.
func printTable(w io.Writer, columns []column, racers []racer, results map[string][]result) error {
	var b strings.Builder
	b.WriteString("| |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s |", c.title)
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(columns)) + "\n")
	for _, r := range racers {
		runs := results[r.name]
		fmt.Fprintf(&b, "| %s |", r.name)
		for i, c := range columns {
			switch failed := runs[len(runs)-1].failed; {
			case failed == "":
				fmt.Fprintf(&b, " %s |", c.text(runs, results))
			case i == 0:
				fmt.Fprintf(&b, " failed: %s |", strings.ReplaceAll(cmp.Or(firstWords(failed), failed), "|", "¦"))
			default:
				b.WriteString(" – |")
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// firstWords cuts a reason short at its first colon.
func firstWords(s string) string { s, _, _ = strings.Cut(s, ":"); return s }

// line tells one run on the terminal.
func (r result) line(name string) string {
	if r.failed != "" {
		return fmt.Sprintf("%-10s failed: %s", name, r.failed)
	}
	return fmt.Sprintf("%-10s %6.2f s wall %6.2f s CPU %8.2f MB", name, r.wall.Round(time.Millisecond).Seconds(), r.cpu.Seconds(), r.memory/1e6)
}
