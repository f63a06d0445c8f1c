//go:build linux

package interop

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

// table collects how the parts of a test went, and prints itself in Markdown once all have ended.
type table struct {
	title   string
	columns []string
	rows    []*row
}

type row struct {
	name string

	mu    sync.Mutex
	cells map[string]string // by column
}

func newTable(t *testing.T, title string, columns ...string) *table {
	tb := &table{title: title, columns: columns}
	t.Cleanup(tb.print)
	return tb
}

func (tb *table) row(name string) *row {
	r := &row{name: name, cells: map[string]string{}}
	tb.rows = append(tb.rows, r)
	return r
}

// record notes how the test that is about to end went, unless it has said so itself.
func (r *row) record(t *testing.T, column string) {
	result := "yes"
	switch {
	case t.Failed():
		result = "**no**"
	case t.Skipped():
		result = "not run"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if said := r.cells[column]; said == "" || t.Failed() {
		r.cells[column] = result
	}
}

// set notes how the test of a column went, in its own words.
func (r *row) set(column, result string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cells[column] = result
}

// print writes the table to standard output, if the tests are verbose.
func (tb *table) print() {
	if !testing.Verbose() || len(tb.rows) == 0 {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n| %s | %s |\n|---%s|\n", tb.title, strings.Join(tb.columns, " | "), strings.Repeat("|---", len(tb.columns)))
	for _, r := range tb.rows {
		fmt.Fprintf(&b, "| %s |", r.name)
		for _, column := range tb.columns {
			cell := r.cells[column]
			if cell == "" {
				cell = "–"
			}
			fmt.Fprintf(&b, " %s |", cell)
		}
		b.WriteByte('\n')
	}
	fmt.Fprintln(os.Stdout, b.String())
}
