# tamp: `make help` lists what this file does.
#
# Objects live in build/<variant>/, one variant for each compiler and sanitizer, so that
# switching does not rebuild the others. A changed flag rebuilds, nothing else does.
# V=1 shows whole commands.

CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
SANITIZER ?=
PREFIX ?= /usr/local
comma := ,
variant := $(notdir $(CC))$(if $(SANITIZER),-$(subst $(comma),-,$(SANITIZER)))
B := build/$(variant)

packages := libmicrohttpd libcjson openblas libcyaml nettle libpcre2-8 libutf8proc libseccomp
have_packages := $(shell pkg-config --exists $(packages) 2>/dev/null && echo yes)
warnings := -Wall -Wextra -Wformat=2 -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
  -Wpointer-arith -Wcast-qual -Wvla -Wundef -Wimplicit-fallthrough -Wwrite-strings -Werror
hardening := -fstack-protector-strong -fstack-clash-protection -D_FORTIFY_SOURCE=2 -fPIE
ifneq ($(SANITIZER),)
hardening := -fPIE
sanitize := -fsanitize=$(SANITIZER) -fno-omit-frame-pointer -fno-sanitize-recover=all
endif

CPPFLAGS += -I. -D_GNU_SOURCE -include base/banned.h \
  $(if $(have_packages),$(shell pkg-config --cflags $(packages)))
CFLAGS += -std=gnu11 -O2 -g $(warnings) $(hardening) $(sanitize)
LDFLAGS += -pie -Wl,-z,relro,-z,now,-z,noexecstack $(sanitize)
LDLIBS += $(if $(have_packages),$(shell pkg-config --libs $(packages))) -lm -lpthread

folders := base config grammar tensor compress vision model engine server cmd
sources := $(filter-out cmd/main.c,$(wildcard $(addsuffix /*.c,$(folders))))
web_files := $(wildcard web/*.html web/*.css web/*.js web/*.svg) docs/images/tshirt.jpg
objects := $(sources:%.c=$(B)/%.o) $(B)/web_files.o
test_sources := tests/run.c tests/support.c $(wildcard tests/unit/*.c)
test_objects := $(test_sources:%.c=$(B)/%.o)
peak_objects := $(patsubst %.c,$(B)/%.o,$(wildcard bench/peak*.c))
bench_objects := $(filter-out $(peak_objects),$(patsubst %.c,$(B)/%.o,$(wildcard bench/*.c)))
own_c := $(wildcard $(addsuffix /*.[ch],$(folders) bench tests tests/unit))

# Numeric folders: the loops are worth more optimisation than the rest.
$(B)/tensor/%.o $(B)/model/%.o $(B)/vision/%.o $(B)/compress/%.o: CFLAGS += -O3 -fno-math-errno
avx2 := -mavx2 -mfma -mf16c
amx := -mavx512bf16 -mamx-tile -mamx-int8 -mamx-bf16
avx512 := $(avx2) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni
$(B)/tensor/kernels_avx2.o $(B)/tensor/packed_avx2.o: CFLAGS += $(avx2)
$(B)/tensor/packed_avxvnni.o: CFLAGS += $(avx2) -mavxvnni
$(B)/tensor/packed_vnni.o: CFLAGS += $(avx512) -mprefer-vector-width=512
$(B)/tensor/packed_amx.o $(B)/tensor/packed_amx_bf16.o $(B)/tensor/packed_amx_wide.o \
  $(B)/tensor/attend_amx.o: CFLAGS += $(avx512) $(amx)
$(B)/tensor/attend_avx2.o $(B)/tensor/vector_ops_avx2.o: CFLAGS += $(avx2)
$(B)/tensor/attend_avx512.o $(B)/tensor/vector_ops_avx512.o: CFLAGS += $(avx2) -mavx512f \
  -mavx512bw -mavx512dq -mavx512vl

jobs := $(shell nproc)
first_mmproj := build/mmproj-first.gguf
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-6s %s\n' $(1) $(2))

.PHONY: all
all: tamp ## build ./tamp

tamp: $(B)/tamp
	$(Q)cp -f $< $@

$(B)/tamp: $(B)/cmd/main.o $(B)/libtamp.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/libtamp.a: $(objects)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/unit-tests: $(test_objects) $(B)/libtamp.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/benchmark: $(bench_objects) $(B)/libtamp.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/peak: $(peak_objects) $(B)/libtamp.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# The page as bytes. The folder is named, too: a file that is gone makes the table stale.
$(B)/web_files.c: tools/embed_web web $(web_files)
	$(call say,EMBED,web/)
	@mkdir -p $(@D)
	$(Q)$(python) tools/embed_web $@ $(web_files)

$(B)/web_files.o: $(B)/web_files.c $(B)/flags
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(B)/%.o: %.c $(B)/flags
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# Written only when the flags differ from those of the last build.
flags_now := $(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS)
$(B)/flags: FORCE
	@$(if $(have_packages),,tools/deps --check run;)
	@mkdir -p $(@D)
	@echo '$(flags_now)' | cmp -s - $@ || echo '$(flags_now)' >$@
.PHONY: FORCE
FORCE:

-include $(objects:.o=.d) $(test_objects:.o=.d) $(bench_objects:.o=.d) $(peak_objects:.o=.d) \
  $(B)/cmd/main.d

# -- what people call ----------------------------------------------------------------

.PHONY: run
run: ## install what is missing, build, bring the models, serve (ARGS='--port 9000')
	@tools/deps run
	@$(MAKE) --no-print-directory -j$(jobs) tamp
	@tools/fetch_models
	@exec ./tamp serve $(ARGS)

.PHONY: deps
deps: ## say what Debian packages are missing and install them (SET=test: also the tests', SET=deb: also the package's)
	@tools/deps $(or $(SET),run)

.PHONY: models
models: ## bring and check the model files
	@tools/fetch_models

.PHONY: test
test: ## everything; ends with "N passed, N failed"
	@tools/deps test
	@$(MAKE) --no-print-directory -j$(jobs) tamp $(B)/unit-tests $(B)/benchmark $(B)/peak build/venv-tests/done build/node/done
	@$(MAKE) --no-print-directory build/venv-docs/done || echo 'test: no MkDocs, so the site is not tested'
	@tools/fetch_models
	@$(MAKE) --no-print-directory $(first_mmproj)
	@tests/run_all --build $(B) all

.PHONY: check
check: $(B)/unit-tests $(B)/tamp $(B)/benchmark $(B)/peak $(first_mmproj) ## the part of the tests that takes under two minutes
	@CC='$(CC)' CPPFLAGS='$(CPPFLAGS)' tests/run_all --build $(B) check

.PHONY: unit
unit: $(B)/unit-tests $(first_mmproj) ## build and run the unit tests (T=name: only those)
	$(Q)$(B)/unit-tests $(T)

.PHONY: bench
bench: $(B)/benchmark $(B)/peak $(B)/tamp ## measure prefill, decode, pictures; compare with llama.cpp if it is there
	@$(B)/benchmark $(ARGS)
	@bench/compare/run.py --if-present --build $(B) $(or $(COMPARE),--quick)

.PHONY: adapter
adapter: build/venv-train/done ## train models/adapter.npz and the LoRA again: under two hours (DATA=folder with labels.json)
	@build/venv-train/bin/python tools/train_adapter.py --data $(or $(DATA),../shared/data/products) \
	  --threads 1 --workers $(jobs) $(ARGS)

.PHONY: docs
docs: $(B)/tamp ## write the generated texts again
	@tools/gen_docs --tamp $(B)/tamp

.PHONY: site
site: build/venv-docs/done ## build the documentation site into build/site
	@NO_MKDOCS_2_WARNING=1 build/venv-docs/bin/mkdocs build --strict

.PHONY: format
format: ## clang-format all of our C
	clang-format -i $(own_c)

# One file each: what its va_list checker knows of one file, it believes of the next.
.PHONY: tidy
tidy: ## clang-tidy all of our C
	@printf '%s\n' $(filter %.c,$(own_c)) | xargs -P $(jobs) -n 1 sh -c \
	  'clang-tidy --quiet "$$@" -- $(CPPFLAGS) -std=gnu11 $(avx512) $(amx) -mavxvnni 2>/dev/null' sh

.PHONY: install
install: tamp ## copy into DESTDIR and PREFIX (/usr/local), models too if they are there
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/tamp/models \
	  $(DESTDIR)$(PREFIX)/share/doc/tamp
	install -m 755 tamp $(DESTDIR)$(PREFIX)/bin/tamp
	install -m 644 config/tamp.yaml $(DESTDIR)$(PREFIX)/share/tamp/tamp.yaml
	install -m 644 README.md LICENSE docs/*.md $(DESTDIR)$(PREFIX)/share/doc/tamp
	tools/install_texts ./tamp $(DESTDIR)$(PREFIX)/share
	for file in models/*.gguf; do [ ! -f "$$file" ] || \
	  install -m 644 "$$file" $(DESTDIR)$(PREFIX)/share/tamp/models; done

.PHONY: deb
deb: ## make build/deb/tamp_VERSION_ARCH.deb, and let lintian judge it
	@tools/deps deb
	@packaging/build

.PHONY: clean
clean: ## remove everything that was built (models stay)
	rm -rf build tamp tests/http/node/node_modules tests/browser/node_modules

.PHONY: help
help: ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12
	@echo 'SANITIZER=address,undefined | thread, CC=clang and V=1 go with any of them.'

# -- what the tests and the training need -------------------------------------------------------

python := $(firstword $(wildcard /usr/bin/python3) python3)

# The reference rows for the language model were made with the first adapter. Without the
# models nothing is made, and the test that needs it is skipped.
default_mmproj := models/mmproj-dinov2-s14-smollm2.gguf
$(first_mmproj): models/adapter-first.npz tools/convert_mmproj.py $(wildcard $(default_mmproj))
	@mkdir -p $(@D)
	@[ ! -f $(default_mmproj) ] || $(python) tools/convert_mmproj.py $(default_mmproj) $< $@

build/venv-train/done: tools/requirements-train.txt
	@echo 'adapter: making the Python environment of the training'
	@rm -rf $(@D) && $(python) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

build/venv-tests/done: tests/http/requirements.txt tests/browser/requirements.txt
	@echo 'test: making the Python environment of the HTTP and browser tests'
	@rm -rf $(@D) && $(python) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check $(addprefix -r ,$^)
	@touch $@

build/venv-docs/done: tools/requirements-site.txt
	@echo 'site: making the Python environment of the documentation'
	@rm -rf $(@D) && $(python) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# No lock file: it would name the registry of whoever wrote it. Versions are pinned.
build/node/done: tests/http/node/package.json tests/browser/package.json
	@echo 'test: bringing the Node packages of the HTTP and browser tests'
	@mkdir -p $(@D)
	@for folder in $(^D); do \
	  (cd $$folder && npm install --no-package-lock --silent --no-audit --no-fund) || exit 1; done
	@touch $@
