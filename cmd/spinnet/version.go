package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"spinnet/cuda"
	"spinnet/kernel"
)

// version is set by the Makefile: -ldflags "-X main.version=…".
var version string

// versionInfo is what "spinnet version" prints.
type versionInfo struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	Kernels string `json:"kernels"`
	Device  string `json:"device"`
	Threads int    `json:"threads"`

	GPUs   []cuda.Info `json:"gpus"`
	Driver string      `json:"gpu_driver,omitempty"` // its release, where known, and the CUDA version it is for
	NoGPU  string      `json:"no_gpu,omitempty"`     // why there is none
	CuBLAS string      `json:"cublas,omitempty"`     // the cuBLASLt that products may use
}

func newVersionCmd() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the build, the kernel set in use and the devices",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versionInfo{buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH, kernel.Set(), "cpu", runtime.GOMAXPROCS(0), []cuda.Info{}, "", "", ""}
			var err error
			if gpus, driver, e := cuda.Devices(); e != nil {
				v.NoGPU = e.Error()
			} else if v.GPUs, v.Driver = append(v.GPUs, gpus...), driver; len(gpus) == 0 {
				v.NoGPU = "the driver sees none"
			} else if v.CuBLAS, err = cuda.CuBLAS(); err != nil {
				v.CuBLAS = "none: " + err.Error()
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "spinnet %s\ngo      %s %s/%s\nkernels %s\ndevice  %s, %d threads\n",
				v.Version, v.Go, v.OS, v.Arch, v.Kernels, v.Device, v.Threads)
			for _, g := range v.GPUs {
				fmt.Fprintf(cmd.OutOrStdout(), "gpu     %s, driver %s\n", g, v.Driver)
				if g.Unusable != "" {
					fmt.Fprintf(cmd.OutOrStdout(), "        not used: %s\n", g.Unusable)
				}
			}
			if v.CuBLAS != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "cublas  %s\n", v.CuBLAS)
			}
			if v.NoGPU != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "gpu     none: %s\n", v.NoGPU)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// buildVersion is the version linked in, else what the Go tool recorded.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return info.Main.Version
}
