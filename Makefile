# tamp: `make help` lists what this file does.
#
# Objects live in build/<variant>/, one variant for each compiler and sanitizer, so that
# switching does not rebuild the others. V=1 shows whole commands.

CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
SANITIZER ?=
comma := ,
variant := $(notdir $(CC))$(if $(SANITIZER),-$(subst $(comma),-,$(SANITIZER)))
B := build/$(variant)

packages := libmicrohttpd libcjson openblas libcyaml nettle libpcre2-8 libutf8proc libseccomp
warnings := -Wall -Wextra -Wformat=2 -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
  -Wpointer-arith -Wcast-qual -Wvla -Wundef -Wimplicit-fallthrough -Wwrite-strings -Werror
hardening := -fstack-protector-strong -fstack-clash-protection -D_FORTIFY_SOURCE=2 -fPIE
ifneq ($(SANITIZER),)
hardening := -fPIE
sanitize := -fsanitize=$(SANITIZER) -fno-omit-frame-pointer -fno-sanitize-recover=all
endif

CPPFLAGS += -I. -D_GNU_SOURCE -include base/banned.h $(shell pkg-config --cflags $(packages))
CFLAGS += -std=gnu11 -O2 -g $(warnings) $(hardening) $(sanitize)
LDFLAGS += -pie -Wl,-z,relro,-z,now,-z,noexecstack $(sanitize)
LDLIBS += $(shell pkg-config --libs $(packages)) -lm -lpthread

folders := base config tensor compress vision model engine server cmd
sources := $(filter-out cmd/main.c,$(wildcard $(addsuffix /*.c,$(folders))))
objects := $(sources:%.c=$(B)/%.o)
test_sources := tests/run.c tests/support.c $(wildcard tests/unit/*.c)
test_objects := $(test_sources:%.c=$(B)/%.o)

# Numeric folders: the loops are worth more optimisation than the rest.
$(B)/tensor/%.o $(B)/model/%.o $(B)/vision/%.o $(B)/compress/%.o: CFLAGS += -O3 -fno-math-errno
$(B)/tensor/kernels_avx2.o: CFLAGS += -mavx2 -mfma -mf16c

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

$(B)/%.o: %.c
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

-include $(objects:.o=.d) $(test_objects:.o=.d) $(B)/cmd/main.d

.PHONY: unit
unit: $(B)/unit-tests ## build and run the unit tests (T=name: only those)
	$(Q)$(B)/unit-tests $(T)

.PHONY: clean
clean: ## remove everything that was built (models stay)
	rm -rf build tamp

.PHONY: help
help: ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12
