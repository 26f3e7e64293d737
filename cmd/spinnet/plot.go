package main

import (
	"errors"
	"fmt"
	"image/color"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"spinnet/interop"
	"spinnet/runlog"
)

// plotFlags are the options of "spinnet plot".
type plotFlags struct {
	out, title, x string
	width, height int
	yMin, yMax    float64
}

// maxPlotSide bounds a picture's sides, in points; maxPlotValue what is drawn:
// an axis of numbers near the largest has no ticks.
const (
	maxPlotSide  = 4000
	maxPlotValue = 1e12
)

func newPlotCmd() *cobra.Command {
	var f plotFlags
	cmd := &cobra.Command{
		Use:   "plot RUN… -o FILE",
		Short: "Draw the loss curves of runs",
		Long: `Plot draws the losses in the metrics.jsonl of one run or several: the running
mean of the training loss as a thin line, the validation loss as a line with
dots. A run is its folder, or the metrics file itself. The ending of FILE says the
format: .png, .svg or .pdf.`,
		Example: `  spinnet plot runs/demo -o demo.png
  spinnet plot runs/walsh runs/octonion -o algebras.svg --x time --y-max 2.5`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return runPlot(args, &f) },
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.out, "output", "o", "", "`FILE` to write")
	fl.StringVar(&f.title, "title", "", "text above the picture")
	fl.StringVar(&f.x, "x", "step", "what goes to the right: step, or time in minutes")
	fl.IntVar(&f.width, "width", 720, "width in points of 1/72 inch")
	fl.IntVar(&f.height, "height", 420, "height in points")
	fl.Float64Var(&f.yMin, "y-min", 0, "lower end of the loss axis (0: the lowest loss)")
	fl.Float64Var(&f.yMax, "y-max", 0, "upper end of the loss axis (0: the highest validation loss, or training loss without one)")
	_ = cmd.MarkFlagRequired("output")
	return cmd
}

// plotColours tell runs apart, also for the colour-blind (Okabe and Ito, 2008).
var plotColours = []color.Color{
	color.RGBA{0x00, 0x72, 0xb2, 0xff}, color.RGBA{0xd5, 0x5e, 0x00, 0xff}, color.RGBA{0x00, 0x9e, 0x73, 0xff},
	color.RGBA{0xcc, 0x79, 0xa7, 0xff}, color.RGBA{0xe6, 0x9f, 0x00, 0xff}, color.RGBA{0x56, 0xb4, 0xe9, 0xff},
	color.RGBA{0x33, 0x33, 0x33, 0xff},
}

// curves is what one run contributes: points (step or minutes, loss).
type curves struct {
	name       string
	train, val plotter.XYs
}

// runPlot is "spinnet plot".
func runPlot(runs []string, f *plotFlags) error {
	if f.x != "step" && f.x != "time" {
		return usagef("--x is step or time, not %q", f.x)
	}
	if f.width < 100 || f.width > maxPlotSide || f.height < 100 || f.height > maxPlotSide {
		return usagef("a picture is 100 to %d points wide and high, not %d × %d", maxPlotSide, f.width, f.height)
	}
	format := strings.TrimPrefix(filepath.Ext(f.out), ".")
	if format != "png" && format != "svg" && format != "pdf" {
		return usagef("%s: the name must end in .png, .svg or .pdf", f.out)
	}
	for name, v := range map[string]float64{"y-min": f.yMin, "y-max": f.yMax} {
		if !drawable(v) {
			return usagef("--%s %g: want a number up to %g", name, v, maxPlotValue)
		}
	}
	if f.yMax != 0 && !(f.yMax > f.yMin) {
		return usagef("--y-max %g is not above --y-min %g", f.yMax, f.yMin)
	}
	var all []curves
	for _, run := range runs {
		c, err := readCurves(run, f.x)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	p := drawCurves(all, f)
	if !(p.Y.Max > p.Y.Min) {
		if f.yMin != 0 || f.yMax != 0 {
			return usagef("no loss lies between --y-min %g and --y-max %g", p.Y.Min, p.Y.Max)
		}
		p.Y.Min, p.Y.Max = p.Y.Min-1, p.Y.Min+1 // a single point
	}
	w, err := p.WriterTo(vg.Length(f.width), vg.Length(f.height), format)
	if err != nil {
		return fmt.Errorf("drawing %s: %w", f.out, err)
	}
	return interop.WriteFile(f.out, func(file io.Writer) error {
		_, err := w.WriteTo(file)
		return err
	})
}

// readCurves reads a run's losses.
func readCurves(run, x string) (curves, error) {
	path := run
	if info, err := os.Stat(run); err == nil && info.IsDir() {
		path = filepath.Join(run, runlog.File)
	}
	records, err := runlog.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return curves{}, &usageError{fmt.Errorf("%s: no such run", run), "give the folder of a run, which holds " + runlog.File}
	}
	if err != nil {
		return curves{}, err
	}
	c := curves{name: path}
	if filepath.Base(path) == runlog.File { // the run's name is its folder's
		c.name = filepath.Dir(path)
	}
	if abs, err := filepath.Abs(c.name); err == nil { // of ".", too
		c.name = abs
	}
	c.name = filepath.Base(c.name)
	for _, r := range records {
		at := float64(r.Step)
		if x == "time" {
			at = r.Elapsed / 60
		}
		if !drawable(at) {
			continue
		}
		if drawable(r.Smooth) {
			c.train = append(c.train, plotter.XY{X: at, Y: r.Smooth})
		}
		if r.Eval != nil && drawable(r.Eval.Val) {
			c.val = append(c.val, plotter.XY{X: at, Y: r.Eval.Val})
		}
	}
	if len(c.train)+len(c.val) == 0 {
		return curves{}, fmt.Errorf("%s: no losses in it yet", path)
	}
	return c, nil
}

// drawable is false for NaN, too.
func drawable(v float64) bool { return math.Abs(v) <= maxPlotValue }

// drawCurves makes the picture.
func drawCurves(all []curves, f *plotFlags) *plot.Plot {
	p := plot.New()
	for _, style := range []*text.Style{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle} {
		style.Font.Variant = "Sans"
	}
	p.Title.Text = f.title
	p.Title.Padding, p.Legend.XOffs, p.Legend.YOffs = vg.Points(8), vg.Points(-6), vg.Points(-6)
	p.Legend.Padding = vg.Points(3)
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.TickerFunc(roundTicks), plot.TickerFunc(roundTicks)
	p.X.Label.Text = map[string]string{"step": "step", "time": "minutes"}[f.x]
	p.Y.Label.Text = "loss, nats a token"
	p.Legend.Top = true
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{0xe4}, color.Gray{0xe4}
	p.Add(grid)
	low, high := math.Inf(1), math.Inf(-1)
	for i, c := range all {
		colour := plotColours[i%len(plotColours)]
		name := c.name
		for _, xy := range c.train {
			low = min(low, xy.Y)
			if len(c.val) == 0 {
				high = max(high, xy.Y)
			}
		}
		if len(c.train) > 0 {
			line := &plotter.Line{XYs: c.train, LineStyle: draw.LineStyle{Color: colour, Width: vg.Points(0.6)}}
			p.Add(line)
			if len(c.val) == 0 {
				p.Legend.Add(name, line)
			}
		}
		if len(c.val) == 0 {
			continue
		}
		best := math.Inf(1)
		for _, xy := range c.val {
			low, high, best = min(low, xy.Y), max(high, xy.Y), min(best, xy.Y)
		}
		line := &plotter.Line{XYs: c.val, LineStyle: draw.LineStyle{Color: colour, Width: vg.Points(1.8)}}
		dots := &plotter.Scatter{XYs: c.val, GlyphStyle: draw.GlyphStyle{Color: colour, Radius: vg.Points(2.5), Shape: draw.CircleGlyph{}}}
		p.Add(line, dots)
		p.Legend.Add(fmt.Sprintf("%s (%.4f)", name, best), line, dots)
	}
	p.X.Min = 0
	p.Y.Min, p.Y.Max = low, high
	if f.yMin != 0 {
		p.Y.Min = f.yMin
	}
	if f.yMax != 0 {
		p.Y.Max = f.yMax
	}
	return p
}

// roundTicks puts five to ten ticks at 1, 2 or 5 times a power of ten.
func roundTicks(from, to float64) []plot.Tick {
	step := math.Pow(10, math.Floor(math.Log10((to-from)/5)))
	for _, m := range []float64{5, 2} {
		if (to-from)/(m*step) >= 5 {
			step *= m
			break
		}
	}
	decimals := max(0, -int(math.Floor(math.Log10(step))))
	var ticks []plot.Tick
	for i := math.Ceil(from / step); i*step <= to; i++ {
		ticks = append(ticks, plot.Tick{Value: i * step, Label: strconv.FormatFloat(i*step, 'f', decimals, 64)})
	}
	return ticks
}
