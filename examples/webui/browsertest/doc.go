// Package browsertest uses the page of webui in a real Chromium, as a user does, and as a hostile page would. It is a module
// of its own, so that no program that needs the library is bound to what drives the browser.
//
//	go test -C examples/webui/browsertest -v -screenshots DIR
//
// It needs chromium and ffmpeg, and is skipped without them unless REQUIRE_INTEROP is 1.
package browsertest
