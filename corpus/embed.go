// Package corpus holds the small text that ships inside the binary, so that
// the demo trains without a download. It imports nothing of ours.
package corpus

import _ "embed" // for the text below

// TinyShakespeare is 1,115,394 bytes of Shakespeare's plays (public domain),
// 65 distinct characters, all ASCII: the usual first character corpus.
//
//go:embed tinyshakespeare.txt
var TinyShakespeare string
