# A trained model and data go in; converted files, measurements and reports come out, and only what changed is rebuilt.
#
#   DATA := train.npz
#   include $(shell edgeopt makefile)
#   app/model.tflite: model.int8.tflite ; cp $< $@
#
# `make edgeopt-help` lists rules and variables. GNU Make 3.81 or newer.

define EDGEOPT_HELP
Rules, for any MODEL.keras or MODEL.h5:
  MODEL.SCHEME.tflite              converted and verified; SCHEME: $(EDGEOPT_FLOAT_SCHEMES) $(EDGEOPT_CALIBRATED_SCHEMES)
  MODEL.SCHEME.onnx                the same for ONNX Runtime; SCHEME: $(EDGEOPT_ONNX_SCHEMES)
  MODEL.repaired.SCHEME.tflite     the same with repairs that need no training; SCHEME: $(EDGEOPT_CALIBRATED_SCHEMES)
  MODEL.report                     a folder: every scheme measured, report.html, best.tflite
  MODEL.inspect.json               what the model holds
and for any FILE.tflite:
  FILE.inspect.json  FILE.eval.json  FILE.bench.json

Variables (set them before the include, or on make's command line):
  DATA           calibrates and scores: FILE.npz, a folder, FILE.csv, digits … [$(DATA)]
  SCHEME         schemes of MODEL.report; all if empty [$(SCHEME)]
  RUNTIME        where files must run, are scored (the first) and timed, as NAME or NAME==VERSION [$(RUNTIME)]
  THREADS        of evaluation, benchmark and report [$(THREADS)]
  EDGEOPT        the command [$(EDGEOPT)]
  EDGEOPT_FLAGS  more options for every command; for one of them, EDGEOPT_FLAGS_convert, _repair, _optimize,
                 _evaluate, _benchmark or _inspect, e.g. EDGEOPT_FLAGS_optimize="--max-drop 1.0"

Recipes do not depend on variables: after changing one, `make -B` what it concerns. Time with -j1.
endef

EDGEOPT ?= edgeopt
EDGEOPT_FLOAT_SCHEMES := float32 float16 dynamic int4-weights int4-block32 int4-block64 int4-block128 int4-block256
EDGEOPT_CALIBRATED_SCHEMES := int8 int8-float-io int8-per-tensor int16x8 int4 int4x16 int3 int2
EDGEOPT_ONNX_SCHEMES := float32 int8 int8-float-io int8-per-tensor float16 dynamic \
    int4-block32 int4-block64 int4-block128 int4-block256
EDGEOPT_DATA_SUFFIXES := .npz .npy .csv .tsv .txt .tfrecord .tfrecords .tfrecord.gz .tfrecords.gz

# Whoever includes this keeps their own default goal.
edgeopt_goal_before := $(.DEFAULT_GOAL)

# DATA is a prerequisite where it is a file, or will be one that another rule makes. A name or a folder is none: the
# time of a folder says nothing of the files in it.
edgeopt_data_file := $(or $(filter $(addprefix %,$(EDGEOPT_DATA_SUFFIXES)),$(DATA)),$(if $(wildcard $(DATA)/.),,$(wildcard $(DATA))))

edgeopt_data = $(if $(DATA),--data '$(DATA)')
edgeopt_runtimes = $(foreach runtime,$(RUNTIME),--runtime $(runtime))
edgeopt_runtime = $(if $(RUNTIME),--runtime $(firstword $(RUNTIME)))
edgeopt_threads = $(if $(THREADS),--threads $(THREADS))
edgeopt_schemes = $(foreach scheme,$(SCHEME),--scheme $(scheme))

# Arguments: the command, its own options. A file under its final name is whole.
edgeopt_run = $(strip $(EDGEOPT) $(1) $< $(2) $(EDGEOPT_FLAGS) $(EDGEOPT_FLAGS_$(1)))
edgeopt_json = $(edgeopt_run) --json > $@.part && mv -f $@.part $@ || { status=$$?; rm -f $@.part; exit $$status; }

# Arguments: the scheme, the model's suffix, the data it depends on and how to say them, the file's suffix.
define edgeopt_scheme_rule
%.$(1).$(5): %.$(2) $(3)
	$$(call edgeopt_run,convert,-o $$@ --scheme $(1) --force $(4) $(if $(filter tflite,$(5)),$$(edgeopt_runtimes)))
endef

define edgeopt_repair_rule
%.repaired.$(1).tflite: %.$(2) $(edgeopt_data_file)
	$$(call edgeopt_run,repair,-o $$@ --scheme $(1) --force $$(edgeopt_data))
endef

define edgeopt_model_rules
$(foreach scheme,$(EDGEOPT_FLOAT_SCHEMES),$(eval $(call edgeopt_scheme_rule,$(scheme),$(1),,,tflite)))
$(foreach scheme,$(EDGEOPT_CALIBRATED_SCHEMES),$(eval $(call edgeopt_scheme_rule,$(scheme),$(1),$(edgeopt_data_file),$$(edgeopt_data),tflite)))
$(foreach scheme,$(EDGEOPT_ONNX_SCHEMES),$(eval $(call edgeopt_scheme_rule,$(scheme),$(1),$(edgeopt_data_file),$$(edgeopt_data),onnx)))
$(foreach scheme,$(EDGEOPT_CALIBRATED_SCHEMES),$(eval $(call edgeopt_repair_rule,$(scheme),$(1))))

# The folder's own time would call a failed or killed run done, and so would a missing stamp: it is there from the
# start, older than any model. Somebody else's folder gets none, and edgeopt refuses it.
%.report/.edgeopt/made: %.$(1) $(edgeopt_data_file)
	@if [ ! -e $$*.report ] || [ -d $$(@D) ]; then mkdir -p $$(@D) && touch -t 197001020000 $$@; fi
	$$(call edgeopt_run,optimize,-o $$*.report $$(edgeopt_data) $$(edgeopt_schemes) $$(edgeopt_runtimes) $$(edgeopt_threads))
	@touch $$@
endef

$(foreach suffix,keras h5,$(eval $(call edgeopt_model_rules,$(suffix))))

%.report: %.report/.edgeopt/made ;
%.report/best.tflite: %.report/.edgeopt/made ;

%.inspect.json: %.tflite
	$(call edgeopt_json,inspect)

%.inspect.json: %.keras
	$(call edgeopt_json,inspect)

%.inspect.json: %.h5
	$(call edgeopt_json,inspect)

%.eval.json: %.tflite $(edgeopt_data_file)
	$(call edgeopt_json,evaluate,$(edgeopt_data) $(edgeopt_runtime) $(edgeopt_threads))

%.bench.json: %.tflite
	$(call edgeopt_json,benchmark,$(edgeopt_runtimes) $(edgeopt_threads))

.PHONY: edgeopt-help edgeopt-data
edgeopt-help:
	@: $(info $(EDGEOPT_HELP))

# Named explicitly, missing data are an error that says so, not "No rule to make" the model.
edgeopt-data: $(edgeopt_data_file)

.DELETE_ON_ERROR:
# What stands between a model and the file asked for is kept, and so is the stamp of a run that failed.
.PRECIOUS: $(foreach scheme,$(EDGEOPT_FLOAT_SCHEMES) $(EDGEOPT_CALIBRATED_SCHEMES),%.$(scheme).tflite) %.report/.edgeopt/made \
    $(foreach scheme,$(EDGEOPT_ONNX_SCHEMES),%.$(scheme).onnx) \
    $(foreach scheme,$(EDGEOPT_CALIBRATED_SCHEMES),%.repaired.$(scheme).tflite)

.DEFAULT_GOAL := $(edgeopt_goal_before)
