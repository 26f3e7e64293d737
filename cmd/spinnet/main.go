// Command spinnet prepares text, trains ternary hypercomplex language models
// on it, and writes and scores text with them. It may import every package.
package main

import "os"

func main() { os.Exit(run(os.Args[1:])) }
