package web

import (
	"encoding/json"
	"path"
	"regexp"
	"strings"
	"testing"
)

// site makes a site of nothing in particular.
func site(t *testing.T) map[string][]byte {
	t.Helper()
	files, err := Site("v1", []byte("module"), Model{`a <b> & "c"`, "prompt", []byte("model")})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// site.json names every file of the site, and only those.
func TestSiteIndex(t *testing.T) {
	files := site(t)
	var index Index
	if err := json.Unmarshal(files["site.json"], &index); err != nil {
		t.Fatal(err)
	}
	named := append(index.Files, index.Runtime.File, index.Model.File, "index.html", "sw.js", "site.json")
	for _, name := range named {
		if _, ok := files[name]; !ok {
			t.Errorf("site.json names %s, which is not there", name)
		}
	}
	if len(named) != len(files) {
		t.Errorf("site.json names %d files, there are %d", len(named), len(files))
	}
	if got := string(files[index.Model.File]); got != "model" || index.Model.Bytes != 5 || index.Model.Name != `a <b> & "c"` {
		t.Errorf("model: got %q, %+v", got, index.Model)
	}
}

// Nothing of the page comes from elsewhere, every address is relative, and all
// that is cached for ever is named by its content.
func TestPageIsSelfContained(t *testing.T) {
	address := regexp.MustCompile(`(?:src|href)="([^"]*)"`)
	hashed := regexp.MustCompile(`^assets/.+-[\w-]{8}\.\w+$`)
	files := site(t)
	html := string(files["index.html"])
	for _, m := range address.FindAllStringSubmatch(html, -1) {
		if name := path.Clean(m[1]); !strings.HasPrefix(m[1], "#") && files[name] == nil {
			t.Errorf("the page names %s, which is not a file of the site", m[1])
		}
	}
	for name, data := range files {
		if strings.HasPrefix(name, "assets/") && !hashed.MatchString(name) {
			t.Errorf("%s is not named by its content", name)
		}
		for _, u := range regexp.MustCompile(`https?://[\w.]+`).FindAllString(string(data), -1) {
			if u != "http://www.w3.org" && u != "http://localhost" { // a namespace, and an example
				t.Errorf("%s names %s", name, u)
			}
		}
	}
	if !strings.Contains(html, `content="default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self';`) {
		t.Error("the page has no strict content security policy")
	}
	if title := `<title>a &lt;b&gt; &amp; &#34;c&#34;</title>`; !strings.Contains(html, title) {
		t.Errorf("the page has no title %s", title)
	}
}

func TestPageIsSmall(t *testing.T) {
	size := 0
	for name, data := range site(t) {
		if !strings.HasPrefix(name, "model-") && !strings.HasPrefix(name, "spinnet-") {
			size += len(data)
		}
	}
	if size > 64<<10 {
		t.Errorf("the page has %d bytes, want at most 64 KiB", size)
	}
}
