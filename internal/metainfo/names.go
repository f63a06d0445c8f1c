package metainfo

import "github.com/shoal-go/torrent/internal/bencode"

// Names returns the name of a torrent and, if it has a list of files (version 1), the path of each below it, as the author of
// the info dictionary wrote them. They are safe nowhere but in URLs. The dictionary must have been parsed.
func Names(info []byte) (name string, paths [][]string) {
	k := readInfoKeys(info)
	b, _ := bencode.String(k.name)
	for value := range bencode.Elems(k.files) {
		var path []string
		f := readFileEntry(value)
		for element := range bencode.Elems(f.path) {
			b, _ := bencode.String(element)
			path = append(path, string(b))
		}
		paths = append(paths, path)
	}
	return string(b), paths
}
