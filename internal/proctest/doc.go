// Package proctest runs a test again in a process of its own, which can be killed, and in namespaces of its own,
// where it may mount file systems or lack root's powers. It is for tests alone, and for Linux.
package proctest
