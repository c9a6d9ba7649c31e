# How setup.sh has llama.cpp built: the server alone, for this machine's processor.

# Not optimized to the last: that takes longer to compile, and the model is tiny.
set(CMAKE_BUILD_TYPE Release CACHE STRING "")
set(CMAKE_C_FLAGS_RELEASE "-O2" CACHE STRING "")
set(CMAKE_CXX_FLAGS_RELEASE "-O1" CACHE STRING "")
set(BUILD_SHARED_LIBS OFF CACHE BOOL "")

# Neither TLS nor downloads of models, and no library that a machine may lack.
set(LLAMA_CURL OFF CACHE BOOL "")
set(LLAMA_OPENSSL OFF CACHE BOOL "")
set(GGML_OPENMP OFF CACHE BOOL "")

set(LLAMA_BUILD_TESTS OFF CACHE BOOL "")
set(LLAMA_BUILD_EXAMPLES OFF CACHE BOOL "")
set(LLAMA_BUILD_TOOLS ON CACHE BOOL "")
set(LLAMA_BUILD_SERVER ON CACHE BOOL "")
